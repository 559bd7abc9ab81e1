"""Results of PtyRAD (``model_iterNNNN.hdf5``), in today's layout and in the coming one.

Today's (PtyRAD 1.0.0) keeps what is refined in ``optimizable_tensors`` and the rest in
``model_attributes`` and ``params``. The coming one says ``ptyrad_schema = 2`` and keeps each part
in ``components/<name>/tensors``; no PtyRAD that can be had writes it yet, and it is read as ptydy
0.5.2 reads it, the inspector of PtyRAD's author.

In both, lengths are in Å; a probe is (modes, Ky, Kx), centred on pixel N // 2, with exp(−iχ) as
here; ``crop_pos`` is the top-left pixel of each window on the canvas, so that a position is
``crop_pos`` + N // 2 + shift; tilts are of the object, in mrad, (y, x). The scale of the probe is
that of PtyRAD's normalised patterns, not electrons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...physics.conversions import from_ptyrad, tilt_from_ptyrad
from ...physics.optics import Optics, energy_of
from .content import number, numbers, pairs, required, word
from .found import Found, own_part

if TYPE_CHECKING:
    import h5py


class Layout(NamedTuple):
    """Where a layout keeps what is read."""

    probe: str
    corner: str
    shifts: str
    tilts: str
    meta: str
    params: str
    aberrations: str
    energy: str
    semi_angle: str
    illumination: str
    source: str
    flips: str


TODAY = Layout(
    "optimizable_tensors/probe",
    "model_attributes/crop_pos",
    "optimizable_tensors/probe_pos_shifts",
    "optimizable_tensors/obj_tilts",
    "model_attributes",
    "params/init_params",
    "probe_aberrations",
    "probe_kv",
    "probe_conv_angle",
    "probe_illum_type",
    "probe_source",
    "meas_flipT",
)
COMING = Layout(
    "components/probe/tensors/modes",
    "components/positions/tensors/crop_pos",
    "components/positions/tensors/shifts",
    "components/object/tensors/tilts",
    "model_meta",
    "params",
    "model/probe/init/aberrations",
    "experiment/kv",
    "experiment/conv_angle",
    "experiment/illum_type",
    "model/probe/init/source",
    "data/flipT",
)


def layout(file: h5py.File) -> Layout | None:
    """Which layout a file has; None if it is no PtyRAD result."""
    schema = file.attrs.get("ptyrad_schema", number(file, "ptyrad_schema"))
    if schema is not None and int(schema) >= 2 and "components" in file:
        return COMING
    return TODAY if "optimizable_tensors" in file else None


def read(file: h5py.File) -> Found:
    """Probe, positions, tilt and optics of a PtyRAD result.

    Raises
    ------
    ValueError, KeyError
        If values are missing or cannot be right.
    """
    at = layout(file)
    if at is None:
        raise ValueError("it is no PtyRAD result")
    if word(_value(file, f"{at.params}/{at.illumination}")) == "xray":
        raise ValueError("it is an X-ray ptychography")
    probe = _probe(file, at)
    pixel: float = required(number(file, f"{at.meta}/dx"), "the pixel size (dx)")
    corner = pairs(file, at.corner, "the probe positions (crop_pos)")
    shifts = numbers(file, at.shifts)
    if shifts is not None and shifts.shape != corner.shape:
        raise ValueError(
            f"it holds {len(corner)} positions and shifts of shape {shifts.shape}: damaged"
        )
    places = corner + (0.0 if shifts is None else shifts) + np.array(probe.shape[1:]) // 2
    tilt, notes = _tilt(file, at)
    energy = _energy(file, at)
    flips = numbers(file, f"{at.params}/{at.flips}")
    if flips is not None and flips.any():
        done = [
            w for w, f in zip(("up-down", "left-right", "transposed"), flips, strict=False) if f
        ]
        notes.append(
            f"PtyRAD had flipped the patterns ({', '.join(done)}): prepare the measurement alike"
        )
    return Found(
        "PtyRAD",
        probe,
        places * pixel,
        (pixel, pixel),
        energy,
        tilt,
        _optics(file, at, energy),
        tuple(notes),
        own_part(file),
    )


def _value(file: h5py.File, path: str) -> object:
    item = file.get(path)
    return item[()] if item is not None and hasattr(item, "dtype") else None


def _probe(file: h5py.File, at: Layout) -> np.ndarray:
    """(M, Ky, Kx), complex64; stored complex, or as pairs of real numbers."""
    path = at.probe
    if path not in file and at is COMING:
        path = "components/probe/tensors/pixels"
    if path not in file:
        raise ValueError("it holds no probe")
    probe = np.asarray(file[path][()])
    if not np.iscomplexobj(probe) and probe.ndim and probe.shape[-1] == 2:
        probe = probe[..., 0] + 1j * probe[..., 1]
    if probe.ndim not in (2, 3):
        raise ValueError(f"its probe has shape {probe.shape}, not (modes, Ky, Kx)")
    return probe if probe.ndim == 3 else probe[None]


def _tilt(file: h5py.File, at: Layout) -> tuple[tuple[float, float], list[str]]:
    tilts = numbers(file, at.tilts)
    if tilts is None or not tilts.size:
        return (0.0, 0.0), []
    if tilts.ndim != 2 or tilts.shape[1] != 2:
        raise ValueError(f"its tilts have shape {tilts.shape}, not (1 or N, 2)")
    mean = tilts.mean(axis=0)
    spread = float(np.abs(tilts - mean).max())
    local = [f"PtyRAD has a tilt for each position, up to {spread:.2g} mrad apart: their mean"]
    y, x = tilt_from_ptyrad((float(mean[0]), float(mean[1])))
    return (y + 0.0, x + 0.0), local if spread > 0 else []


def _energy(file: h5py.File, at: Layout) -> float:
    """kV; from the wavelength where it is not said."""
    energy = number(file, f"{at.params}/{at.energy}")
    if energy is not None:
        return energy
    wavelength = number(file, f"{at.meta}/lambd")
    return energy_of(required(wavelength, "the beam energy, nor the wavelength"))


def _optics(file: h5py.File, at: Layout, energy: float) -> Optics | None:
    """Aperture and aberrations that PtyRAD was told; None where it was given a probe instead."""
    angle = number(file, f"{at.params}/{at.semi_angle}") or number(file, f"{at.meta}/conv_angle")
    if not angle or word(_value(file, f"{at.params}/{at.source}")) not in ("", "simu"):
        return None
    group = file.get(f"{at.params}/{at.aberrations}")
    told: dict[str, float] = {}
    if group is not None and hasattr(group, "keys"):
        told = {name: v for name in group if (v := number(group, name)) is not None}
    if at is TODAY:  # names up to PtyRAD 0.1.0b8; defocus positive is underfocus
        for old, name in (("defocus", "defocus"), ("c3", "C30"), ("c5", "C50")):
            if value := number(file, f"{at.params}/probe_{old}"):
                told.setdefault(name, value)
    try:
        start = Optics(energy=energy, semi_angle=angle, C30=0.0)
        return from_ptyrad(told, start) if told else None
    except ValueError:  # a name that is not known here
        return None
