"""Aberrations under the names, signs and units of other packages.

abTEM and py4DSTEM take ``Cnm`` in Å and ``phinm`` in rad, as here. PtyRAD takes Krivanek's names
with azimuths in **degrees**. In all three the aperture carries exp(−iχ), and where they speak of
``defocus`` they mean −C10: positive is underfocus.

Azimuths run from +x (columns) towards +y (rows). abTEM's arrays are (x, y), so its probes are
transposed with respect to ours and the azimuths are the same. py4DSTEM calls the rows x and the
columns y and takes φ = arctan2(columns, rows) (``ComplexProbe.polar_coordinates`` in its
``process/phase/utils.py``): an azimuth φ here is π/2 − φ there. Checked against a probe that
py4DSTEM 0.14.18 made with C10, C12, C21 and C23.

The tilt of the beam is (y, x) in mrad here, in the sense of :mod:`.propagation`: abTEM's, whose
pair is (x, y), and py4DSTEM's (``theta_x`` along the rows, ``theta_y`` along the columns).
PtyRAD's ``obj_tilts`` are (y, x) in mrad of the *object*, and its factor exp(+2πi t k·tan θ) moves
the wave by −t tan θ (``PtychoModel.get_propagators`` in its ``core/models/ptycho.py``): the same
geometry has the opposite sign.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from .aberrations import ABERRATIONS, azimuth_of
from .optics import Optics

# PtyRAD's Haider names: what Krivanek's coefficient is of Haider's
_HAIDER = {
    "C1": ("C10", 1),
    "A1": ("C12", 1),
    "B2": ("C21", 3),
    "A2": ("C23", 1),
    "C3": ("C30", 1),
    "S3": ("C32", 4),
    "A3": ("C34", 1),
    "B4": ("C41", 4),
    "D4": ("C43", 4),
    "A4": ("C45", 1),
    "C5": ("C50", 1),
    "S5": ("C52", 6),
    "R5": ("C54", 6),
    "A5": ("C56", 1),
}
_ALIASES = {
    "Cs": "C30",
    "astigmatism": "C12",
    "astigmatism_angle": "phi12",
    "astigmatism3": "C23",
    "astigmatism3_angle": "phi23",
    "coma": "C21",
    "coma_angle": "phi21",
    "C5": "C50",
}  # of abTEM and py4DSTEM


def to_abtem(optics: Optics) -> dict[str, float]:
    """What ``abtem.Probe(aberrations=…)`` and ``abtem.CTF`` take: C10 … C56 in Å, phinm in rad."""
    out: dict[str, float] = {}
    for name, (_, m) in ABERRATIONS.items():
        out[name] = optics.overfocus if name == "C10" else float(getattr(optics, name))
        if m:
            out[azimuth_of(name)] = float(getattr(optics, azimuth_of(name)))
    return out


def to_py4dstem(optics: Optics) -> dict[str, float]:
    """What py4DSTEM's ``polar_parameters`` and ``ComplexProbe(parameters=…)`` take."""
    return _from_rows(to_abtem(optics))


def from_py4dstem(parameters: Mapping[str, float], start: Optics) -> Optics:
    """Optics with the aberrations of py4DSTEM's polar parameters; `start` gives the rest.

    Aberrations that are not named become zero.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    polar: dict[str, float] = {}
    for key, value in parameters.items():
        if key == "defocus":
            polar["C10"] = -float(value)
        else:
            polar[_ALIASES.get(key, key)] = float(value)
    return _with_polar(_from_rows(polar), start)


def to_ptyrad(optics: Optics) -> dict[str, float]:
    """What PtyRAD's ``make_stem_probe(aberrations=…)`` takes: Å and degrees, zeros left out."""
    out: dict[str, float] = {}
    for name, value in to_abtem(optics).items():
        if name.startswith("C") and value != 0:
            out[name] = value
            if ABERRATIONS[name][1]:
                out[azimuth_of(name)] = math.degrees(getattr(optics, azimuth_of(name)))
    return out


def from_ptyrad(aberrations: Mapping[str, float], start: Optics) -> Optics:
    """Optics with PtyRAD's aberrations; `start` gives energy, aperture and all else.

    Krivanek's names in polar (``C12``, ``phi12`` in degrees) or Cartesian form (``C12a``,
    ``C12b``), Haider's (``A1``, ``A1phi``), ``defocus`` and ``Cs``. Aberrations that are not named
    become zero.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    polar: dict[str, float] = {}
    cartesian: dict[str, float] = {}
    for key, raw in aberrations.items():
        value = float(raw)
        if key == "defocus":
            polar["C10"] = -value
        elif key == "Cs":
            polar["C30"] = value
        elif key in _HAIDER:
            name, factor = _HAIDER[key]
            polar[name] = factor * value
        elif key.endswith("phi") and key[:-3] in _HAIDER:
            polar[azimuth_of(_HAIDER[key[:-3]][0])] = math.radians(value)
        elif key.startswith("phi"):
            polar[key] = math.radians(value)
        elif key[-1:] in ("a", "b"):
            cartesian[key] = value
        else:
            polar[key] = value
    both = {key[:3] for key in cartesian} & {key.replace("phi", "C") for key in polar}
    if both:
        raise ValueError(
            f"{', '.join(sorted(both))}: give magnitude and azimuth, or the Cartesian pair, "
            "not both"
        )
    return _with_polar(polar, start).with_cartesian(cartesian)


def tilt_to_abtem(tilt: tuple[float, float]) -> tuple[float, float]:
    """What ``abtem.Probe(tilt=…)`` takes, (x, y) in mrad, of a beam tilt (y, x) in mrad."""
    return tilt[1], tilt[0]


def tilt_to_ptyrad(tilt: tuple[float, float]) -> tuple[float, float]:
    """PtyRAD's ``obj_tilts``, (y, x) in mrad, of a beam tilt (y, x) in mrad."""
    return -tilt[0], -tilt[1]


def tilt_from_ptyrad(obj_tilt: tuple[float, float]) -> tuple[float, float]:
    """Beam tilt (y, x) in mrad, of one row of PtyRAD's ``obj_tilts``."""
    return -obj_tilt[0], -obj_tilt[1]


def _from_rows(polar: Mapping[str, float]) -> dict[str, float]:
    """Azimuths from rows to columns as such from columns to rows, and back; 0 where there is no
    magnitude."""
    out = dict(polar)
    for name, (_, m) in ABERRATIONS.items():
        if m and polar.get(name):
            out[azimuth_of(name)] = math.pi / 2 - polar.get(azimuth_of(name), 0.0)
        elif m and azimuth_of(name) in polar:
            out[azimuth_of(name)] = 0.0
    return out


def _with_polar(polar: Mapping[str, float], start: Optics) -> Optics:
    """Optics whose aberrations are these, as they are written, and zero else."""
    known = to_abtem(start)
    unknown = sorted(set(polar) - set(known))
    if unknown:
        raise ValueError(
            f"unknown aberration {', '.join(unknown)}; there are {', '.join(known)} and defocus"
        )
    update = {name: float(polar.get(name, 0.0)) for name in known}
    update["overfocus"] = update.pop("C10")
    return Optics.model_validate({**start.model_dump(), **update})
