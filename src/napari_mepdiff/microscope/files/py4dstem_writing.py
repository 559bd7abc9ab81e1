"""A microscope state as a py4DSTEM reconstruction, which ``py4DSTEM.read`` opens.

It becomes a ``MixedstateMultislicePtychography`` of one empty slice: its ``_probe`` and
``positions`` are what ``initial_probe_guess`` and ``initial_scan_positions`` of a new one take.
Checked with py4DSTEM 0.14.18.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.hdf5_writing import write_hdf5
from ...physics.conversions import to_py4dstem
from ...physics.optics import Optics, wavelength
from ..state import MicroscopeState
from .found import OWN, beside, told_optics
from .py4dstem import to_py4dstem_probe

if TYPE_CHECKING:
    import h5py

_NAME = "mepdiff_microscope_state"


def write(state: MicroscopeState, path: str | Path) -> None:
    """See :func:`napari_mepdiff.microscope.files.save_microscope`.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    pixel, window = np.array(state.pixel_size), np.array(state.probe.shape[1:])
    low = state.positions.min(axis=0)
    places = (state.positions - low) / pixel + window / 2  # half a window of room
    canvas = np.ceil(places.max(axis=0) + window / 2).astype(int)
    optics = state.optics or told_optics(state)
    with write_hdf5(path) as (file, _check):
        for name, value in (
            ("emd_group_type", "file"), ("version_major", 1), ("version_minor", 0),
            ("authoring_program", "napari-mepdiff"), ("authoring_user", ""),
        ):  # fmt: skip
            file.attrs[name] = value
        root = _group(file, f"{_NAME}_root", "root", "Root")
        group = _group(root, _NAME, "custom", "MixedstateMultislicePtychography")
        _array(group, "_object_emd", np.ones((1, *canvas), np.complex64))
        _array(group, "_probe_emd", to_py4dstem_probe(state.probe))
        meta = group.create_group("metadatabundle")
        meta.attrs["emd_group_type"] = "metadatabundle"
        _metadata(meta, "instantiation_metadata", _before(state, optics))
        _metadata(
            meta,
            "preprocess_metadata",
            {
                "rotation_angle_rad": 0.0,
                "data_transpose": False,
                "positions_px": places,
                "region_of_interest_shape": window,
                "amplitudes_shape": window,
                "num_diffraction_patterns": len(places),
                "sampling": tuple(pixel),
                "angular_sampling": tuple(wavelength(state.energy) * 1e3 / pixel / window),
                "positions_mask": None,
            },
        )
        # no reconstruction, so no error; its reader asks for the last one
        _metadata(meta, "reconstruction_metadata", {"reconstruction_error": [np.nan]})
        polar = {} if optics is None else to_py4dstem(optics)
        _metadata(meta, "aberrations_metadata", {k: float(v) for k, v in polar.items()})
        file.create_dataset(OWN, data=beside(state, low - window / 2 * pixel))


def _before(state: MicroscopeState, optics: Optics | None) -> dict[str, Any]:
    """The arguments that its reader makes the reconstruction with."""
    cutoff = None if optics is None else optics.semi_angle + optics.soft_edge / 2
    return {
        "energy": state.energy * 1e3,
        "semiangle_cutoff": cutoff,
        "rolloff": 0.0 if optics is None else optics.soft_edge,
        "object_padding_px": None,
        "object_fov_ang": None,
        "object_type": "complex",
        "verbose": True,
        "device": "cpu",
        "storage": "cpu",
        "clear_fft_cache": True,
        "name": _NAME,
        "vacuum_probe_intensity": None,
        "positions": state.positions - state.positions.min(axis=0),
        "num_probes": len(state.probe),
        "num_slices": 1,
        "slice_thicknesses": np.zeros(0),
        "theta_x": state.tilt[0],
        "theta_y": state.tilt[1],
    }


def _group(parent: h5py.Group, name: str, kind: str, python_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["emd_group_type"], group.attrs["python_class"] = kind, python_class
    return group


def _array(parent: h5py.Group, name: str, values: np.ndarray) -> None:
    group = _group(parent, name, "custom_array", "Array")
    data = group.create_dataset("data", data=values, compression="gzip")
    data.attrs["units"] = ""
    for axis in range(values.ndim):
        dim = group.create_dataset(f"dim{axis}", data=np.array([0, 1]))
        dim.attrs["name"], dim.attrs["units"] = f"dim{axis}", "pixels"


def _metadata(parent: h5py.Group, name: str, values: dict[str, Any]) -> None:
    """A dictionary as emdfile writes it: each value with an attribute that tells its type."""
    group = _group(parent, name, "metadata", "Metadata")
    for key, value in values.items():
        kind, stored = _typed(value)
        group.create_dataset(key, data=stored).attrs["type"] = kind


def _typed(value: Any) -> tuple[str, Any]:
    if value is None:
        return "None", "_None"
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, str):
        return "string", value
    if isinstance(value, (tuple, list)):
        return type(value).__name__, np.asarray(value)
    return ("array" if isinstance(value, np.ndarray) else "number"), value
