"""Ptychographic reconstructions of py4DSTEM, as ``py4DSTEM.save`` writes them (emdfile, HDF5).

Read and checked with py4DSTEM 0.14.18. Its x are the rows and its y the columns, so pairs are (y,
x) here. The probe has its middle in the corner, and Σ|FFT(probe)|² is the sum of a pattern. A
position in pixels is that of the probe's middle on the canvas, in the frame of the detector (turned
by the rotation between scan and detector already). ``defocus`` is −C10; azimuths count from the
rows, see :mod:`napari_mepdiff.physics.conversions`. ``theta_x`` and ``theta_y`` are the tilt of the
beam, with the sign it has here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...physics.conversions import from_py4dstem
from ...physics.optics import Optics, wavelength
from .content import number, numbers, pairs, required, word
from .found import Found, own_part

if TYPE_CHECKING:
    import h5py

_META = "metadatabundle"
_BEFORE, _PREPARED = f"{_META}/instantiation_metadata", f"{_META}/preprocess_metadata"
_ABERRATIONS = f"{_META}/aberrations_metadata"
_CHANNELS = ("Parallax", "DPC")  # phase images without a probe


def reconstructions(file: h5py.File) -> list[str]:
    """Paths of the groups that hold a phase reconstruction of py4DSTEM."""
    import h5py

    found: list[str] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and word(item.attrs.get("emd_group_type")) == "custom":
            kind = word(item.attrs.get("python_class"))
            if "Ptychograph" in kind or kind in _CHANNELS or "_probe_emd" in item:
                found.append(name)

    file.visititems(look)
    return found


def read(file: h5py.File) -> Found:
    """Probe, positions, tilt and optics of a py4DSTEM ptychography.

    Raises
    ------
    ValueError, KeyError
        If values are missing or cannot be right, or there are several.
    """
    names = reconstructions(file)
    if len(names) != 1:
        raise ValueError(f"it holds {len(names)} reconstructions ({', '.join(names)}), not one")
    group = file[names[0]]
    kind = word(group.attrs.get("python_class"))
    if "_probe_emd" not in group or kind in _CHANNELS:
        raise ValueError(f"it is a {kind} reconstruction of py4DSTEM, which has no probe")
    energy: float = required(number(group, f"{_BEFORE}/energy"), "the beam energy") / 1e3  # eV
    pixel = _sampling(group, energy)
    data = group["_probe_emd/data"]
    probe = np.asarray(data[()])
    if probe.ndim not in (2, 3) or not np.iscomplexobj(probe):
        raise ValueError(f"its probe has shape {probe.shape} and type {probe.dtype}")
    probe = np.fft.fftshift(probe if probe.ndim == 3 else probe[None], axes=(1, 2))
    places = pairs(group, f"{_PREPARED}/positions_px", "the probe positions (positions_px)")
    return Found(
        "py4DSTEM",
        probe * np.sqrt(probe.shape[1] * probe.shape[2]),
        places * np.array(pixel),
        pixel,
        energy,
        (number(group, f"{_BEFORE}/theta_x") or 0.0, number(group, f"{_BEFORE}/theta_y") or 0.0),
        _optics(group, energy),
        tuple(_notes(group)),
        own_part(file),
    )


def _sampling(group: h5py.Group, energy: float) -> tuple[float, float]:
    """Å for each axis; from the angle of a detector pixel where it is not said."""
    found = numbers(group, f"{_PREPARED}/sampling")
    if found is None:
        angle = numbers(group, f"{_PREPARED}/angular_sampling")  # mrad
        count = numbers(group, f"{_PREPARED}/amplitudes_shape")
        if angle is None or count is None:
            raise ValueError("it does not say the pixel size (sampling)")
        found = wavelength(energy) * 1e3 / angle / count
    found = np.ravel(found)
    if found.size != 2:
        raise ValueError(f"its pixel size (sampling) has {found.size} values, not 2")
    return float(found[0]), float(found[1])


def _optics(group: h5py.Group, energy: float) -> Optics | None:
    """Aperture and aberrations that py4DSTEM was told; its edge falls inside the cutoff."""
    cutoff = _finite(group, f"{_BEFORE}/semiangle_cutoff")
    if not cutoff:
        return None
    rolloff = _finite(group, f"{_BEFORE}/rolloff") or 0.0
    told = group.get(_ABERRATIONS)
    polar = {} if told is None else {n: v for n in told if (v := number(told, n)) is not None}
    try:
        start = Optics(
            energy=energy, semi_angle=cutoff - rolloff / 2, soft_edge=rolloff, edge="cosine"
        )
        return from_py4dstem(polar, start)
    except ValueError:  # a name that is not known here, an aperture that is all edge
        return None


def _finite(group: h5py.Group, path: str) -> float | None:
    """A number; None where it is infinite: a probe from a vacuum pattern has no cutoff."""
    try:
        return number(group, path)
    except ValueError:
        return None


def _notes(group: h5py.Group) -> list[str]:
    turn = number(group, f"{_PREPARED}/rotation_angle_rad") or 0.0
    swapped = bool(number(group, f"{_PREPARED}/data_transpose") or 0)
    if not turn and not swapped:
        return []
    also = ", transposed" if swapped else ""
    return [
        f"py4DSTEM had turned the scan by {np.degrees(turn):.2f}°{also}, against the detector: "
        "positions are in the detector's frame"
    ]


def to_py4dstem_probe(probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """A centred probe (M, Ky, Kx), √electrons, with its middle in the corner and its scale."""
    count = probe.shape[1] * probe.shape[2]
    out: NDArray[np.complex64] = np.fft.ifftshift(probe, axes=(1, 2)) / np.float32(count**0.5)
    return out
