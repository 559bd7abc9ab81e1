"""A nearly right microscope from a bare file, within seconds and before any reconstruction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..measurement.dataset import Calibration, DataError, FourDSTEM
from ..measurement.detectors import centre_of_mass, radius_map
from ..measurement.reading import Progress, Summary
from ..physics.optics import Optics
from .counts import Counts, estimate_counts
from .disk import BrightDisk, fit_disk
from .orientation_table import Misfit, Orientation, orientation_table, thick_side
from .parallax import Parallax, parallax
from .values import Value, agreement

DOUBTFUL = 0.7  # rest of curl from which on shifts of images, too, tell of crystal, not of lens
Sign = Literal["known", "likely", "unknown"]


@dataclass(frozen=True)
class Estimate:
    """What the patterns tell, beside what was told.

    Attributes
    ----------
    values : tuple of Value
    disk : BrightDisk
    counts : Counts
    parallax : Parallax or None
    orientations : tuple of Orientation
        The best first; empty where nothing tells.
    notes : tuple of str
        What could not be estimated, and why; what speaks for the sign of the defocus.
    sign : 'known', 'likely' or 'unknown'
        Whether the data tell the sign of the defocus.
    """

    values: tuple[Value, ...]
    disk: BrightDisk
    counts: Counts
    parallax: Parallax | None
    orientations: tuple[Orientation, ...]
    notes: tuple[str, ...]
    sign: Sign

    def __getitem__(self, name: str) -> Value:
        """The value of that name.

        Raises
        ------
        KeyError
        """
        for value in self.values:
            if value.name == name:
                return value
        raise KeyError(name)

    def calibration(self, told: Calibration) -> Calibration:
        """With rotation, pixel or semi-angle, and dose as estimated, where they are not known.

        The rotation holds for the detector read as the best of `orientations` says.
        """
        fields: dict[str, Any] = {}
        for title, field in (
            ("semi-angle", "semi_angle"),
            ("detector pixel", "pixel_size"),
            ("dose", "dose"),
        ):
            value = next((v.value for v in self.values if v.name == title), None)
            if getattr(told, field) is None and value is not None:
                fields[field] = value
        if self.parallax is not None:
            fields["rotation"] = round(self.parallax.angle, 1)
        return told.model_copy(update=fields)

    def optics(self, told: Optics) -> Optics:
        """With defocus (at the entrance surface, where the thickness is known) and astigmatism."""
        p = self.parallax
        if p is None:
            return told
        fields: dict[str, Any] = {"overfocus": p.C10 if p.entrance is None else p.entrance}
        if p.astigmatic:
            fields |= {"C12": p.C12, "phi12": p.phi12}
        return told.model_copy(update=fields)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "values": [vars(v) for v in self.values],
            "orientations": [{"name": o.name, **vars(o)} for o in self.orientations],
            "sign": self.sign,
            "notes": list(self.notes),
        }


def estimate(
    data: FourDSTEM, progress: Progress | None = None, misfit: Misfit | None = None
) -> Estimate:
    """Estimate disk, counts, orientation, defocus and astigmatism.

    Parameters
    ----------
    data : FourDSTEM
        Whatever is known of it; energy and scan step cannot be estimated.
    progress : callable, optional
        Told the fraction done; may raise to end the work.
    misfit : callable, optional
        See :func:`~.orientation_table.orientation_table`.

    Raises
    ------
    DataError
        If the patterns are not finite, empty, or have no bright disk.
    """

    def part(first: float, last: float) -> Progress:
        def tell(done: float) -> None:
            if progress is not None:
                progress(first + (last - first) * min(1.0, done))

        return tell

    seen = data.reading.summary(part(0, 0.3))
    if seen.not_finite:
        raise DataError(
            f"{seen.not_finite} values are NaN or infinite: repair the pixels first "
            "(repair_pixels in the preparation)"
        )
    if seen.minimum < 0 and seen.pacbed.min() < -0.05 * seen.pacbed.max():
        raise DataError("the average pattern is negative: subtract less background")
    disk = fit_disk(seen.pacbed)
    counts = estimate_counts(data, seen, part(0.3, 0.4))
    notes: list[str] = []
    known = _scaled(data, disk)
    shifts: Parallax | None = None
    sign: Sign = "unknown"
    com = None
    try:
        shifts = parallax(known, disk, part(0.4, 0.7))
    except DataError as error:
        notes.append(str(error))
    if min(data.scan_shape) >= 3:
        com = centre_of_mass(known, part(0.7, 0.9))
    if shifts is not None and com is not None:
        shifts, sign, note = _signed(known, disk, seen, shifts, com)
        notes.append(note)
    orientations: tuple[Orientation, ...] = ()
    if com is not None or shifts is not None:
        orientations = orientation_table(known, com, shifts, misfit)
        if misfit is not None and shifts is not None:
            best = orientations[0]
            sign = "known"
            if best.C10 is not None and best.C10 * shifts.C10 < 0:
                shifts = shifts.other
            notes[-1] = "the sign of the defocus is that of the lower misfit"
    part(0.9, 1.0)(1.0)
    values = (
        *_disk(data, disk),
        *_counts(data, counts, seen),
        *_lens(known, shifts, sign, _rest_of_curl(orientations)),
    )
    return Estimate(values, disk, counts, shifts, orientations, tuple(notes), sign)


def _scaled(data: FourDSTEM, disk: BrightDisk) -> FourDSTEM:
    """With the detector calibrated by the disk, where only the semi-angle is known."""
    size = disk.pixel_size(data.calibration)
    if data.calibration.pixel_size is not None or size is None:
        return data
    return data.calibrated(pixel_size=size)


class _Signed(NamedTuple):
    shifts: Parallax
    sign: Sign
    note: str


def _signed(
    data: FourDSTEM, disk: BrightDisk, seen: Summary, shifts: Parallax, com: Any
) -> _Signed:
    """The reading of the pair for which something speaks, and what that is."""
    if shifts.signed:
        return _Signed(shifts, "known", "the sign of the defocus is told by C30")
    told = data.optics is not None and data.optics.overfocus != 0
    lit = (radius_map(data.detector_shape, disk.centre) < 1.05 * disk.radius).astype(np.float32)
    inside = (data.data * lit).sum(axis=(2, 3), dtype=np.float64)
    lost = -np.asarray(inside.compute(scheduler="threads"))
    right, r = thick_side(data, com, lost, shifts)
    if right is None:
        why = "as it was told" if told else "one of the two: nothing in these data tells which"
        return _Signed(shifts, "unknown", f"the sign of the defocus is {why}")
    wanted = shifts if right else shifts.other
    note = (
        f"{'over' if wanted.C10 > 0 else 'under'}focus is likely: with it the phase is high where "
        f"electrons are lost from the bright disk (correlation {abs(r):.2f})"
    )
    if told and wanted is not shifts:
        return _Signed(shifts, "unknown", f"{note}; the opposite was told, and is kept")
    return _Signed(wanted, "likely", note)


def _disk(data: FourDSTEM, disk: BrightDisk) -> Iterator[Value]:
    c = data.calibration
    middle = tuple(n // 2 for n in data.detector_shape)
    for axis, name in enumerate("yx"):
        off = disk.centre[axis] - middle[axis]
        said = "in the middle" if abs(off) < 0.5 else f"{off:+.1f} px off: centre the patterns"
        yield Value(
            f"disk centre {name}", "px", disk.centre[axis], disk.centre_error, middle[axis], said
        )
    yield Value(
        "disk radius", "px", disk.radius, disk.radius_error, c.disk_radius,
        f"rim {disk.edge:.1f} px wide" if c.disk_radius is None
        else agreement(disk.radius, disk.radius_error, c.disk_radius, 0.02 * disk.radius),
    )  # fmt: skip
    share = disk.radius_error / disk.radius
    angle, pixel = disk.semi_angle(c), disk.pixel_size(c)
    if angle is not None:
        said = agreement(angle, share * angle, c.semi_angle, 0.02 * angle)
        yield Value("semi-angle", "mrad", angle, share * angle, c.semi_angle, said)
    if pixel is not None:
        said = agreement(pixel, share * pixel, c.pixel_size, 0.02 * pixel)
        yield Value("detector pixel", "Å⁻¹", pixel, share * pixel, c.pixel_size, said)
    if angle is None and pixel is None:
        said = "give the beam energy, and the semi-angle or the detector pixel"
        yield Value("semi-angle", "mrad", None, None, c.semi_angle, said)


def _counts(data: FourDSTEM, counts: Counts, seen: Summary) -> Iterator[Value]:
    c = data.calibration
    yield Value("gain", "", counts.gain, counts.error, None, counts.message)
    if counts.electrons is None or counts.gain is None:
        return
    share = (counts.error or 0) / counts.gain
    n = counts.electrons
    error = math.hypot(share * n, math.sqrt(n / seen.total.size))
    said = agreement(n, error, c.electrons, 0.2 * n) if c.electrons else "on the detector"
    yield Value("electrons a pattern", "e", n, error, c.electrons, said)
    if c.scan_step is not None:
        dose = n / (c.scan_step[0] * c.scan_step[1])
        said = agreement(dose, share * dose, c.dose, 0.2 * dose)
        yield Value("dose", "e/Å²", dose, error / n * dose, c.dose, said)


def _rest_of_curl(orientations: tuple[Orientation, ...]) -> float | None:
    return orientations[0].curl if orientations else None


def _lens(data: FourDSTEM, p: Parallax | None, sign: Sign, curl: float | None) -> Iterator[Value]:
    c, o = data.calibration, data.optics
    if p is None:
        yield Value("scan rotation", "°", None, None, c.rotation, "see the notes")
        return
    plane = "middle of the specimen" if p.entrance is None else "entrance surface"
    value = p.C10 if p.entrance is None else p.entrance
    told = None if o is None else o.overfocus
    pair = "" if sign == "known" else f"; or {p.other.angle:.1f}° with {-p.C10:+.4g} Å"
    off = abs((p.angle - c.rotation + 180) % 360 - 180)
    said = "agrees" if off < max(3 * p.angle_error, 1) else "0 or another was told"
    if curl is not None and curl > DOUBTFUL:
        said = "doubtful: the deflection of the patterns has as much curl at any rotation"
    swap = ", detector axes swapped" if p.transpose else ""
    yield Value("scan rotation", "°", p.angle, p.angle_error, c.rotation, said + swap + pair)
    word = "overfocus" if value > 0 else "underfocus"
    agrees = agreement(value, p.C10_error, told)
    yield Value("C10", "Å", value, p.C10_error, told, f"{word}, {plane}; {agrees}")
    small = not p.astigmatic
    said = (
        "none that can be told from 0"
        if small
        else agreement(p.C12, p.C12_error, None if o is None else o.C12)
    )
    yield Value("C12", "Å", p.C12, p.C12_error, None if o is None else o.C12, said)
    if not small:
        angle, error = math.degrees(p.phi12), math.degrees(p.C12_error / p.C12 / 2)
        told = None if o is None else math.degrees(o.phi12)
        yield Value("phi12", "°", angle, error, told, "from +x towards +y")
