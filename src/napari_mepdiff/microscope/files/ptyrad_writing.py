"""A microscope state as a PtyRAD result, to begin a reconstruction there.

Today's layout, as far as PtyRAD 1.0.0 reads it with ``probe_source``, ``pos_source`` and
``tilt_source`` 'PtyRAD' (the path as ``probe_params``, ``pos_params``, ``tilt_params``). There is
no object in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...base.hdf5_writing import write_hdf5
from ...physics.conversions import tilt_to_ptyrad, to_ptyrad
from ...physics.optics import wavelength
from ..state import MicroscopeState
from .found import OWN, beside, told_optics


def write(state: MicroscopeState, path: str | Path) -> None:
    """See :func:`napari_mepdiff.microscope.files.save_microscope`.

    Raises
    ------
    ValueError
        If pixels or window are not square: PtyRAD has one number for both axes.
    OSError
        If it cannot be written.
    """
    dy, dx = state.pixel_size
    rows, columns = state.probe.shape[1:]
    if rows != columns or abs(dy / dx - 1) > 1e-5:
        raise ValueError(
            f"PtyRAD knows square windows of square pixels only; this probe has {rows} × {columns} "
            f"px of {dy:.4g} × {dx:.4g} Å"
        )
    if Path(path).suffix.lower() not in (".h5", ".hdf5"):  # it goes by the name
        raise ValueError(f"PtyRAD reads results named .hdf5 or .h5; got {Path(path).name}")
    places = state.positions / dx
    low, high = places.min(axis=0), places.max(axis=0)
    # its own canvas: 1.2 times what the windows need, the scan in the middle
    canvas = (1.2 * np.ceil(high - low + rows)).astype(int)
    start = np.maximum(canvas - rows - (high - low), 0) / 2
    top_left = places - low + start
    corner = np.round(top_left).astype(np.int32)
    origin = (low - start - rows // 2) * dx
    optics = state.optics or told_optics(state)
    with write_hdf5(path) as (file, _check):
        tensors = file.create_group("optimizable_tensors")
        tensors["probe"] = state.probe
        tensors["probe_pos_shifts"] = (top_left - corner).astype(np.float32)
        tensors["obj_tilts"] = np.array([tilt_to_ptyrad(state.tilt)], np.float32)
        attributes = file.create_group("model_attributes")
        attributes["crop_pos"] = corner
        attributes["dx"] = dx
        attributes["dk"] = 1 / (rows * dx)
        attributes["lambd"] = wavelength(state.energy)
        params = file.create_group("params/init_params")
        params["probe_kv"] = state.energy
        if optics is not None:
            params["probe_conv_angle"] = optics.semi_angle
            told = params.create_group("probe_aberrations")
            for name, value in to_ptyrad(optics).items():
                told[name] = value
        file.create_dataset(OWN, data=beside(state, origin))
