"""Automatic: what the patterns say of a microscope of which little was told, taken over; whether
it needs refinement, and in which slices the prior then sees the specimen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..measurement.preparation import ORIENTED, Preparation
from ..microscope.estimate import DOUBTFUL
from ..reconstruction.assumptions import DEFAULT_SLICES, DEFAULT_THICKNESS

if TYPE_CHECKING:
    from ..measurement.dataset import Calibration, FourDSTEM
    from ..microscope.estimate import Estimate
    from ..microscope.orientation_table import Orientation

GAIN = 0.05  # relative: a detector that differs by less from counting electrons does count them
OFF_CENTRE = 1.0  # px
TURNED = 3.0  # degrees
CURL = 0.3  # rest of curl from which on the deflection alone does not tell
CLEAR = 10.0  # significance of the shifts of virtual images that tell beside it
TOGETHER = 10.0  # Å of a thick specimen that the physics takes at a time


@dataclass(frozen=True)
class Depth:
    """Slices of a stage.

    Attributes
    ----------
    slices : int
    slice_thickness : float
        Å.
    together : int
        Slices that the physics takes as one.
    """

    slices: int
    slice_thickness: float
    together: int = 1


def depth_for_prior(calibration: Calibration, slice_thickness: float = DEFAULT_THICKNESS) -> Depth:
    """Slices of the prior for a specimen of the told thickness; 8 where none is told.

    Several are taken together by the physics where the specimen is thicker than two times 10 Å.
    """
    known = calibration.thickness
    if known is None:
        return Depth(DEFAULT_SLICES, slice_thickness)
    slices = max(4, round(known / slice_thickness))
    together = round(TOGETHER / slice_thickness) if known > 2 * TOGETHER else 1
    return Depth(slices, known / slices, together)


def told_by_patterns(
    preparation: Preparation, data: FourDSTEM, found: Estimate
) -> tuple[Preparation, tuple[str, ...]]:
    """The preparation with what nobody told and the patterns say.

    What was told stays, but where patterns contradict it that is noted. A gain is taken over
    whatever was told: without it no misfit means anything.

    Parameters
    ----------
    preparation : Preparation
        With which the data were prepared.
    data : FourDSTEM
        Prepared.
    found : Estimate
        Of these data.

    Returns
    -------
    Preparation, notes
        A note for each value: taken over, or why not.
    """
    notes: list[str] = []
    after = preparation
    for part in (_gain, _centre, _scale, _orientation, _focus):
        for note, more in part(after, data, found):
            notes.append(note)
            # an orientation turns the centre that was just taken over
            after = Preparation.model_validate({**after.model_dump(), **more})
    return after, tuple(notes)


_Said = Iterator[tuple[str, dict[str, Any]]]


def _gain(p: Preparation, _data: FourDSTEM, found: Estimate) -> _Said:
    gain = found.counts.gain
    if gain is None:
        yield f"gain not estimated: {found.counts.message}", {}
    elif abs(gain - 1) > max(GAIN, 3 * (found.counts.error or 0.0)):
        yield f"gain {gain:.4g} per electron taken over", {"gain": gain * (p.gain or 1.0)}


def _centre(p: Preparation, data: FourDSTEM, found: Estimate) -> _Said:
    off = [c - n // 2 for c, n in zip(found.disk.centre, data.detector_shape, strict=True)]
    if max(map(abs, off)) < OFF_CENTRE or p.crop is not None:
        return
    ky, kx = (p.bin * n for n in data.detector_shape)
    y, x = p.centre_off((off[0], off[1]), (kx, ky) if p.transpose else (ky, kx))
    text = f"disk {off[0]:+.1f}, {off[1]:+.1f} px off the middle (y, x): patterns centred"
    yield text, {"centre_y": round(y, 2), "centre_x": round(x, 2)}


def _scale(p: Preparation, data: FourDSTEM, found: Estimate) -> _Said:
    c = data.calibration
    angle, pixel = found.disk.semi_angle(c), found.disk.pixel_size(c)
    if c.semi_angle is None and angle is not None:
        yield f"semi-angle {angle:.3g} mrad taken over", {"semi_angle": round(angle, 4)}
    if c.pixel_size is None and pixel is not None and c.semi_angle is not None:
        mrad = c.semi_angle / found.disk.radius / p.bin
        yield f"detector pixel {mrad:.4g} mrad taken over", {"pixel_mrad": round(mrad, 6)}


def _orientation(p: Preparation, data: FourDSTEM, found: Estimate) -> _Said:
    if not found.orientations:
        return
    best, told = found.orientations[0], data.calibration.rotation
    away = 0.0 if best.rotation is None else abs((best.rotation - told + 180) % 360 - 180)
    plain = not (best.transpose or best.flip_y or best.flip_x)
    if plain and away < TURNED:
        return
    what = f"detector read '{best.name}'"
    if best.rotation is not None:
        what += f", scan rotation {best.rotation:.1f}°"
    given = p.rotation is not None or p.transpose or p.flip_y or p.flip_x or told != 0
    why = "another is told, and kept" if given else _doubt(best, found)
    if why:
        yield f"the patterns suggest: {what}; not taken over: {why}", {}
        return
    yield f"{what}: taken over", _oriented(p, best)


def _doubt(best: Orientation, found: Estimate) -> str:
    shifts = found.parallax
    clear = shifts is not None and shifts.significance > CLEAR and shifts.angle_error < TURNED
    most = DOUBTFUL if clear else CURL
    if best.rotation is None or best.curl is None or best.curl > most:
        return "the deflection of the patterns hardly tells"
    if best.sense is False:
        return "shifts of the virtual images speak against it"
    if found.sign == "unknown":
        return "nothing tells it from the reading turned by 180° with the opposite defocus"
    return ""


def _oriented(p: Preparation, best: Orientation) -> dict[str, Any]:
    after = p.turned(best.rotation or 0.0, best.transpose)
    fields = {n: getattr(after, n) for n in ORIENTED}
    fields["flip_y"] = bool(fields["flip_y"]) != best.flip_y
    fields["flip_x"] = bool(fields["flip_x"]) != best.flip_x
    return fields


def _focus(_p: Preparation, data: FourDSTEM, found: Estimate) -> _Said:
    shifts, told = found.parallax, data.optics
    if shifts is None:
        return
    value = shifts.C10 if shifts.entrance is None else shifts.entrance
    if data.probe is not None:
        yield f"overfocus {value:.0f} Å by the patterns; the file holds the probe, kept", {}
        return
    if told is not None and told.overfocus:
        if abs(value - told.overfocus) > max(3 * shifts.C10_error, 50.0):
            yield f"overfocus {value:.0f} Å by the patterns; {told.overfocus:g} Å told, kept", {}
        return
    if found.sign == "unknown":
        yield f"overfocus {value:.0f} or {-value:.0f} Å: nothing tells which; the first taken", {}
    fields: dict[str, Any] = {"overfocus": round(value, 1)}
    text = f"overfocus {value:.0f} ± {shifts.C10_error:.0f} Å taken over"
    if shifts.astigmatic and (told is None or not told.C12):
        fields |= {"C12": round(shifts.C12, 1), "phi12": round(shifts.phi12, 3)}
        text += f", astigmatism {shifts.C12:.0f} Å too"
    yield text, fields


def microscope_known(data: FourDSTEM) -> str:
    """Why a measurement needs no refinement; empty where it does."""
    if data.boundary == "periodic":
        return "a simulated periodic field, whose probe is what it is said to be"
    if data.probe is not None:
        return "the file holds the probe"
    return ""
