"""Names what is wrong with a measurement, in words that say what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..physics.optics import probe_from_parameters
from .dataset import DataError, FourDSTEM
from .virtual import Summary, find_disk, summary


@dataclass(frozen=True)
class Finding:
    """One thing found. Errors make a reconstruction impossible, warnings make it doubtful."""

    level: Literal["error", "warning"]
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def validate(data: FourDSTEM, seen: Summary | None = None) -> list[Finding]:
    """Look through the data once and check numbers against each other.

    Parameters
    ----------
    seen : Summary, optional
        Of an earlier pass, to spare a second one.
    """
    seen = seen or summary(data)
    out: list[Finding] = []

    def add(level: Literal["error", "warning"], code: str, message: str) -> None:
        out.append(Finding(level, code, message))

    if seen.not_finite:
        add("error", "nan", f"{seen.not_finite} pixels are NaN or infinite: mask or repair them")
    if seen.minimum < 0:
        add("error", "negative", f"the smallest value is {seen.minimum:g}: counts cannot be negative; subtract less "
            "background, or clip")
    empty = int((seen.total <= 0).sum())
    if empty == seen.total.size:
        add("error", "empty", "every pattern is empty: wrong data set, or the file was never filled")
        return out
    if empty:
        add("error", "zero-patterns", f"{empty} of {seen.total.size} patterns are all zero: crop the scan or leave them out")
    typical = float(np.median(seen.total))
    if typical > 0 and (seen.total > 20 * typical).any():
        add("warning", "outliers", "some patterns have more than 20 times the usual counts: look for glitches")

    c = data.calibration
    for value, code, what in (
        (c.pixel_size, "no-pixel-size", "detector pixel size (Å⁻¹ or mrad)"),
        (c.energy, "no-energy", "beam energy (kV)"),
        (c.semi_angle, "no-semi-angle", "convergence semi-angle (mrad)"),
        (c.scan_step if data.positions is None else True, "no-scan-step", "scan step (Å)"),
    ):
        if value is None:
            add("error", code, f"the {what} is not known: set it before a reconstruction")
    if c.energy is not None and not 10 <= c.energy <= 1500:
        add("warning", "energy-unit", f"a beam energy of {c.energy:g} kV is unusual: is it in V or MV?")
    disk = find_disk(seen.pacbed)
    ky, kx = data.detector_shape
    off = np.hypot(disk.centre[0] - ky // 2, disk.centre[1] - kx // 2)
    if off > max(1.5, 0.1 * disk.radius):
        add("warning", "off-centre", f"the bright disk is centred on ({disk.centre[0]:.1f}, {disk.centre[1]:.1f}), "
            f"{off:.1f} px from the middle: centre the patterns")
    if disk.radius >= 0.5 * min(ky, kx) - 1:
        add("error", "disk-cut", "the bright disk fills the detector: the pattern is smaller than the disk")
    expected = c.disk_radius
    if expected is not None:
        if 2 * expected > min(ky, kx):
            add("error", "pattern-smaller-than-disk",
                f"by the calibration the bright disk is {2 * expected:.0f} px wide, the pattern only {min(ky, kx)} px: "
                "check pixel size, semi-angle and energy (Å⁻¹ or mrad? mrad or rad?)")
        elif not 0.7 < disk.radius / expected < 1.4:
            add("warning", "disk-size",
                f"the bright disk has a radius of {disk.radius:.1f} px, by the calibration it should be {expected:.1f} px: "
                "check pixel size, semi-angle and energy")
    if c.scan_step is not None and c.pixel_size is not None and (
        expected is not None and 2 * expected <= min(ky, kx) and data.optics is not None
    ):
        size = probe_size(data)
        step = max(c.scan_step)
        if step > size:
            add("error", "step-larger-than-probe", f"the scan step ({step:g} Å) is larger than the probe ({size:.1f} Å): "
                "neighbouring positions do not overlap; is the step in nm or pm?")
    elif c.scan_step is not None and c.pixel_size is not None and max(c.scan_step) > 0.5 / c.pixel_size:
        add("error", "step-larger-than-window", f"the scan step ({max(c.scan_step):g} Å) is larger than half of the "
            f"window ({1 / c.pixel_size:.1f} Å): check its unit")
    if c.scan_step is not None and min(c.scan_step) < 0.005:
        add("warning", "step-unit", f"a scan step of {min(c.scan_step):g} Å is very small: is it in nm?")
    return out


def probe_size(data: FourDSTEM) -> float:
    """Diameter in Å that holds 90 % of the probe's intensity (from the optics)."""
    import torch

    pixel = data.real_pixel
    probe = probe_from_parameters(data.illumination(), data.detector_shape, pixel, dtype=torch.complex128)[0]
    intensity = probe.abs().square().numpy()
    y, x = np.indices(intensity.shape)
    r = np.hypot((y - intensity.shape[0] // 2) * pixel[0], (x - intensity.shape[1] // 2) * pixel[1]).ravel()
    order = np.argsort(r)
    inside = np.cumsum(intensity.ravel()[order])
    return 2 * float(r[order][np.searchsorted(inside, 0.9 * inside[-1])])


def require_valid(data: FourDSTEM) -> list[Finding]:
    """Warnings, if there is nothing worse.

    Raises
    ------
    DataError
        With all errors in its message.
    """
    found = validate(data)
    errors = [f.message for f in found if f.level == "error"]
    if errors:
        raise DataError("the data cannot be reconstructed:\n- " + "\n- ".join(errors))
    return found
