"""Defocus, astigmatism and rotation from tilt-corrected bright field.

A pixel k of the bright disk sees the specimen under a tilt; over a scan its image is that of the
middle, moved by what the illumination's aberrations make of that tilt: I_k(r) = I_0(r + s(k)) with
s = ∇χ(k) / 2π = λ H k, H = [[C10 + C12 cos 2φ12, C12 sin 2φ12], […, C10 − C12 cos 2φ12]] along
(x, y) of the detector (Spoth et al., Microscopy and Microanalysis 26, 2020; Varnavides et al.,
arXiv:2309.05250; Lupini et al., Microscopy and Microanalysis 22, 891, 2016). In the scan's own
axes s = R⁻¹ λ H k, and the polar decomposition of that matrix tells R from H.

(R, H) and (−R, −H) are the same matrix: the rotation θ with C10 and θ + 180° with −C10 cannot be
told apart by shifts that are linear in k. A known C30 tells, if it is large enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..measurement.dataset import DataError, FourDSTEM
from ..measurement.orientation import scan_axes
from ..measurement.reading import Progress
from ..physics.optics import wavelength
from .alignment import Array, aligned, first_guess, fit_line, refine
from .disk import BrightDisk, fit_disk
from .shadows import shadows

# what does not depend on the dose, by simulations with known truth
SYSTEMATIC = 0.02  # of C10
FOCUS = 0.1  # of the depth of focus: near focus diffraction moves images too


@dataclass(frozen=True)
class Parallax:
    """What the shifts tell; the second reading is (angle + 180°, −C10, phi12 + 90°).

    Attributes
    ----------
    angle, angle_error : float
        Degrees, in (−180, 180]: the calibration's rotation that goes with this `C10`.
    C10, C10_error : float
        Å, of the middle of the specimen; positive is overfocus.
    C12, C12_error, phi12 : float
        Å, Å, rad.
    transpose : bool
        Whether the detector's axes must be swapped first; all the rest holds for swapped patterns.
    entrance : float or None
        C10 at the entrance surface, half the thickness less; None where that is not known.
    signed : bool
        Whether the data themselves tell the sign of C10 (by C30).
    correlation, significance : float
        Of the means of two halves of the images, and how many times what chance gives.
    residual : float
        Rms of the shifts about the law, scan steps.
    image : ndarray
        The images over each other, bright field relative to its mean.
    upsampled : int
        Pixels of `image` for a scan step.
    images : int
        How many took part.
    """

    angle: float
    angle_error: float
    C10: float
    C10_error: float
    C12: float
    C12_error: float
    phi12: float
    transpose: bool
    entrance: float | None
    signed: bool
    correlation: float
    significance: float
    residual: float
    image: NDArray[np.float64]
    upsampled: int
    images: int

    @property
    def astigmatic(self) -> bool:
        """Whether C12 can be told from 0."""
        return 2 * self.C12_error < self.C12

    @property
    def other(self) -> Parallax:
        """The reading with the other sign of the defocus."""
        thick = None if self.entrance is None else self.C10 - self.entrance
        return replace(
            self,
            angle=_turn(self.angle + 180),
            C10=-self.C10,
            phi12=(self.phi12 + math.pi / 2) % math.pi,
            entrance=None if thick is None else -self.C10 - thick,
        )


def parallax(
    data: FourDSTEM, disk: BrightDisk | None = None, progress: Progress | None = None
) -> Parallax:
    """Defocus, astigmatism and rotation, with the sign of the defocus that is told, if any.

    Parameters
    ----------
    data : FourDSTEM
        A raster of at least 8 × 8 positions with pixel size, energy and scan step known.
    disk : BrightDisk, optional
        From :func:`fit_disk` of the average pattern.
    progress : callable, optional
        Told the fraction done; may raise to end the work.

    Raises
    ------
    DataError
        If something is not known that it needs, or the images do not tell.
    """
    c = data.calibration
    if min(data.scan_shape) < 8:
        raise DataError(
            f"a scan of {data.scan_shape[0]} × {data.scan_shape[1]} positions is too small to see "
            "how images move with the tilt: at least 8 × 8 are needed"
        )
    missing = [
        name
        for name, value in (("detector pixel (Å⁻¹)", c.pixel_size), ("beam energy (kV)", c.energy))
        if value is None
    ]
    if c.scan_step is None and data.positions is None:
        missing.append("scan step (Å)")
    if c.pixel_size is None or c.energy is None or missing:
        raise DataError(f"for the defocus one must know: {', '.join(missing)}")
    axes = scan_axes(data)
    disk = disk or fit_disk(data.reading.summary().pacbed)
    seen = shadows(data, disk, progress=progress)
    k = seen.pixels * c.pixel_size
    start = first_guess(seen.images, seen.cells, k)
    steps, shifts, weight = refine(seen.images, k, start)
    correlation, significance = _halves(seen.images, k @ steps.T, seen.cells)
    if not significance > 4 or (weight > 0).sum() < 9:
        raise DataError(
            "the images that parts of the bright disk see do not correlate: no defocus can be "
            "told (dose too low, nothing in the field, or the scan is far too coarse)"
        )
    lam = wavelength(c.energy)
    cubic = 0.0 if data.optics is None else data.optics.C30
    fit = _law(k, shifts @ axes.T, weight, lam, cubic)
    told = None if data.optics is None else data.optics.overfocus
    if not fit.signed and told and told * fit.C10 < 0:
        fit = fit.other
    half = None if c.thickness is None else c.thickness / 2
    image, fine = _first_look(seen.images[weight > 0], (k @ steps.T)[weight > 0])
    return replace(
        fit,
        angle=_turn(fit.angle + c.rotation),
        entrance=None if half is None else fit.C10 - half,
        correlation=correlation,
        significance=significance,
        residual=fit.residual / float(np.linalg.norm(axes, axis=0).mean()),
        image=image,
        upsampled=fine,
    )


def _law(k: Array, s: Array, weight: Array, lam: float, cubic: float) -> Parallax:
    """Rotation and aberrations from shifts s (Å, scan axes) of the images at k (Å⁻¹)."""
    matrix, _, use = fit_line(k, s, weight)
    transpose = bool(np.linalg.det(matrix) < 0)
    if transpose:
        k = k[:, ::-1]
    tries = []
    for sign in (1.0, -1.0):
        rest, matrix = s, np.eye(2)
        for _ in range(3 if cubic else 1):
            matrix, offset, use = fit_line(k, rest, weight)
            turn, h = _polar(matrix, sign)
            k2 = (k**2).sum(axis=1, keepdims=True)
            rest = s - (lam**3 * cubic * k2 * k) @ turn.T
        off = rest - k @ matrix.T - offset
        tries.append((float((use * (off**2).sum(axis=1)).sum()), turn, h, use, off))
    tries.sort(key=lambda t: t[0])
    least, turn, h, use, off = tries[0]
    free = 2 * int((use > 0).sum()) - 6
    variance = least / use.sum() / 2 * (free + 6) / free
    # what differs between the readings must be larger than what the law leaves of the shifts
    largest = abs(lam**3 * cubic) * float((k**2).sum(axis=1).max()) ** 1.5
    signed = largest > math.sqrt(2 * variance) and tries[1][0] - least > 25 * least / free
    # shifts against one common mean err together; twice the scatter covers it
    centred = k - np.average(k, axis=0, weights=use)
    spread = float((use[:, None] * centred**2).sum() / 2) * float(use.sum() / (use**2).sum())
    error = 2 * math.sqrt(variance / spread) / lam
    h = h / lam
    c10 = float(np.trace(h)) / 2
    c12 = math.hypot((h[1, 1] - h[0, 0]) / 2, h[0, 1])
    phi12 = 0.5 * math.atan2(h[0, 1], (h[1, 1] - h[0, 0]) / 2) % math.pi
    turned = math.hypot(error, SYSTEMATIC * abs(c10)) / max(abs(c10), 1e-9)
    depth = 1 / (lam * float((k**2).sum(axis=1).max()))  # of focus, Å
    error = math.hypot(math.hypot(error, SYSTEMATIC * c10), FOCUS * depth)
    # turn takes (y, x) of the detector into the scan: [[c, −s], [s, c]]
    angle = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
    residual = math.sqrt(float(np.average((off**2).sum(axis=1), weights=use)))
    return Parallax(
        _turn(angle), math.degrees(min(math.pi, turned)), c10, error, c12, error, phi12,
        transpose, None, signed, 0.0, 0.0, residual,
        np.zeros((1, 1)), 1, int((use > 0).sum()),
    )  # fmt: skip


def _polar(matrix: Array, sign: float) -> tuple[Array, Array]:
    """A rotation and a symmetric matrix whose product it is; the trace of the latter has `sign`."""
    u, size, v = np.linalg.svd(matrix)
    return sign * (u @ v), sign * (v.T * size) @ v


def _halves(images: Array, shifts: Array, cells: NDArray[np.int64]) -> tuple[float, float]:
    """Correlation of the aligned means of two halves of the images, and its significance."""
    moved, valid = aligned(images, shifts)
    means = []
    odd = cells.sum(axis=1) % 2 == 1
    inside = np.ones(images.shape[1:], bool)
    for half in (odd, ~odd):
        count = valid[half].sum(axis=0)
        inside &= count >= 0.25 * half.sum()
        means.append((moved[half] * valid[half]).sum(axis=0) / np.maximum(count, 1))
    if inside.sum() < 30:
        return 0.0, 0.0
    r = float(np.corrcoef(means[0][inside], means[1][inside])[0, 1])
    return r, r * math.sqrt(float(inside.sum()) / 4)  # interpolation makes neighbours alike


def _first_look(images: Array, shifts: Array) -> tuple[Array, int]:
    """All images over each other; twice as fine where their shifts fill the gaps evenly."""
    fraction = (2 * shifts) % 2 >= 1
    fine = 2 if all(0.2 < f.mean() < 0.8 for f in fraction.T) else 1
    ny, nx = images.shape[1:]
    total, count = np.zeros((fine * ny, fine * nx)), np.zeros((fine * ny, fine * nx))
    iy, ix = np.mgrid[:ny, :nx]
    for image, s in zip(images, shifts, strict=True):
        y, x = np.round(fine * (iy + s[0])).astype(int), np.round(fine * (ix + s[1])).astype(int)
        on = (y >= 0) & (x >= 0) & (y < fine * ny) & (x < fine * nx)
        np.add.at(total, (y[on], x[on]), image[on])
        np.add.at(count, (y[on], x[on]), 1)
    return total / np.maximum(count, 1), fine


def _turn(degrees: float) -> float:
    """The same angle in (−180, 180]."""
    return 180 - (180 - degrees) % 360
