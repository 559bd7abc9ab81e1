"""The microscope in one table: told, estimated, refined, and what the next run sets free."""

from __future__ import annotations

from dataclasses import dataclass
from math import degrees, floor, isfinite, log10
from typing import TYPE_CHECKING, Literal

from ..microscope.values import Value, agreement, refined_values

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..microscope.estimate import Estimate
    from ..microscope.state import MicroscopeState
    from ..reconstruction.ordinary.refine_settings import RefineSettings

Block = Literal["probe", "positions", "tilt", "background", ""]
BLOCKS: dict[Block, tuple[str, ...]] = {
    "probe": (
        "C10", "C12", "phi12", "C21", "phi21", "C23", "phi23", "C30", "semi-angle", "source size",
        "strongest mode",
    ),
    "positions": (
        "scan rotation", "scan step y", "scan step x", "scan scale y", "scan scale x",
        "scan shear", "scan turn", "jitter",
    ),
    "tilt": ("tilt y", "tilt x"),
    "background": ("background",),
    "": (
        "beam energy", "detector pixel", "disk centre y", "disk centre x", "disk radius", "gain",
        "electrons a pattern", "dose",
    ),
}  # fmt: skip
TITLES: dict[Block, str] = {
    "probe": "Probe",
    "positions": "Scan",
    "tilt": "Beam tilt",
    "background": "Background",
    "": "Detector and dose",
}
_UNITS = {
    "C30": "Å", "scan step y": "Å", "scan step x": "Å", "beam energy": "kV",
}  # fmt: skip
_AS_TOLD = {"C30", "semi-angle", "scan rotation", "scan step y", "scan step x"}  # never free
ROUNDING = 1e-9  # in any of the units: what is smaller comes of rounding
_ABERRATIONS = ("C12", "C21", "C23")


@dataclass(frozen=True)
class Row:
    """One number of the microscope, from every side.

    Attributes
    ----------
    name, unit : str
    told : float or None
        As file, calibration or user say.
    estimated, estimated_error : float or None
        By the patterns alone, with one standard deviation.
    refined, refined_error : float or None
        By a reconstruction, likewise.
    verdict : str
        In words: whether what was found is what was told.
    block : str
        The setting of `refine` that sets it free; empty where none does.
    free : bool
        Whether the next run of `refine` may move it.
    """

    name: str
    unit: str
    told: float | None
    estimated: float | None
    estimated_error: float | None
    refined: float | None
    refined_error: float | None
    verdict: str
    block: Block
    free: bool


def microscope_table(
    data: FourDSTEM | None,
    estimated: Estimate | None,
    refined: MicroscopeState | None,
    settings: RefineSettings,
) -> tuple[Row, ...]:
    """All that is known of the microscope, block by block.

    Parameters
    ----------
    data : FourDSTEM or None
        What is told, and its scan.
    estimated : Estimate or None
    refined : MicroscopeState or None
        Nothing is said of the scan where its positions are not those of `data`.
    settings : RefineSettings
        Of the next run.
    """
    told = {} if data is None else told_values(data)
    guessed = {} if estimated is None else {v.name: v for v in estimated.values}
    found: dict[str, Value] = {}
    if refined is not None:
        scan = None
        if data is not None and (data.positions is not None or data.calibration.scan_step):
            scan = data.scan_positions()
        optics = None if data is None else data.optics
        found = {v.name: v for v in refined_values(refined, optics, scan)}
    rows = []
    for block, names in BLOCKS.items():
        for name in names:
            one, other, said = guessed.get(name), found.get(name), told.get(name)
            if one is None and other is None and said is None:
                continue
            rows.append(_row(name, block, said, one, other, is_free(name, block, settings)))
    return tuple(rows)


def _row(
    name: str, block: Block, told: float | None, one: Value | None, other: Value | None, free: bool
) -> Row:
    unit = _UNITS.get(name, "")
    for value in (one, other):
        if value is not None:
            unit = value.unit
            told = value.told if told is None else told
    return Row(
        name,
        unit,
        told,
        None if one is None else one.value,
        None if one is None else one.error,
        None if other is None else other.value,
        None if other is None else other.error,
        _verdict(told, one, other),
        block,
        free,
    )


def _verdict(told: float | None, one: Value | None, other: Value | None) -> str:
    """Of the refined value, else of the estimated; what was told since is taken into account."""
    value = one if other is None or other.value is None else other
    if value is None:
        return ""
    stale = value is one and value.told != told
    if value.value is not None and value.error is not None and (stale or not value.verdict):
        return agreement(value.value, value.error, told)
    return value.verdict


def told_values(data: FourDSTEM) -> dict[str, float]:
    """What is told of the microscope, by the names of the table; angles of aberrations in °."""
    c, o = data.calibration, data.optics
    out: dict[str, float | None] = {
        "beam energy": c.energy,
        "semi-angle": c.semi_angle,
        "detector pixel": c.pixel_size,
        "scan rotation": c.rotation,
        "electrons a pattern": c.electrons,
        "dose": c.dose,
    }
    if c.scan_step is not None and data.positions is None:
        out |= {"scan step y": c.scan_step[0], "scan step x": c.scan_step[1]}
    if o is not None:
        out |= {"C10": o.overfocus, "C30": o.C30}
        for name in _ABERRATIONS:
            out[name] = size = getattr(o, name)
            if size:
                out[f"phi{name[1:]}"] = degrees(getattr(o, f"phi{name[1:]}"))
    return {name: float(value) for name, value in out.items() if value is not None}


def free_blocks(settings: RefineSettings) -> dict[Block, bool]:
    """Which parts of the microscope a run of `refine` with these settings may move."""
    return {
        "probe": settings.probe != "fixed",
        "positions": settings.positions != "fixed",
        "tilt": settings.tilt,
        "background": settings.background,
    }


def is_free(name: str, block: Block, settings: RefineSettings) -> bool:
    """Whether a run of `refine` with these settings may move a value."""
    if name in _AS_TOLD or not block or not free_blocks(settings)[block]:
        return False
    if name == "source size":
        return settings.modes > 1
    if name == "strongest mode":
        return settings.probe == "free"
    return settings.positions == "free" if name == "jitter" else True


def as_words(value: float | None, error: float | None = None) -> str:
    """A number to the digits that its error leaves: '120.8 ± 1.3', '(2.61 ± 0.03)e5'.

    Of an error one digit is told, or two where the first is 1. No more than five digits of the
    number are told, or three below 1; an error below the last is left out. Empty where there is no
    number.
    """
    if value is None:
        return ""
    if abs(value) < ROUNDING:
        value = 0.0
    if not error or not isfinite(error):
        return f"{value:.4g}".replace("e+0", "e")
    size = max(abs(value), error)
    power = floor(log10(size))
    if power >= 5:
        return f"({as_words(value / 10.0**power, error / 10.0**power)})e{power}"
    place = floor(log10(error))
    digits = -place + (error / 10.0**place < 2)
    digits = max(0, min(digits, (4 if power >= 0 else 2) - power))
    spread = f"{error:.{digits}f}"
    return f"{value:.{digits}f} ± {spread}" if float(spread) else f"{value:.{digits}f}"
