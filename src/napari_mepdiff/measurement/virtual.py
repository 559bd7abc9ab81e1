"""Virtual detectors and what patterns tell about themselves: images, disk, centre of mass, rotation, hot pixels.

All work chunk by chunk, so memory stays at a few chunks whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from .dataset import DataError, FourDSTEM

Progress = Callable[[float], None]  # told the fraction done; may raise to end the work


@dataclass(frozen=True)
class Summary:
    """One pass over the data.

    Attributes
    ----------
    pacbed : ndarray
        Position-averaged pattern, (Ky, Kx), float64.
    total : ndarray
        Sum of each pattern, (Ny, Nx).
    minimum, maximum : float
        Over all finite pixels.
    not_finite : int
        Pixels that are NaN or infinite (counted as zero in the images).
    """

    pacbed: NDArray[np.float64]
    total: NDArray[np.float64]
    minimum: float
    maximum: float
    not_finite: int


def summary(data: FourDSTEM, progress: Progress | None = None) -> Summary:
    """PACBED, totals, range and NaN count in one pass."""
    parts = [
        dask.delayed(_summarise)(block) for block in data.data.to_delayed().ravel()
    ]
    ny, nx = data.scan_shape
    total = np.empty((ny, nx))
    pacbed = np.zeros(data.detector_shape)
    low, high, bad = np.inf, -np.inf, 0
    rows, cols = data.data.chunks[:2]
    corners = [(sum(rows[:i]), sum(cols[:j])) for i in range(len(rows)) for j in range(len(cols))]
    if any(len(c) != 1 for c in data.data.chunks[2:]):
        raise AssertionError("patterns are never split between chunks")
    for start in range(0, len(parts), 16):
        for (y, x), (sums, pattern, lo, hi, nan) in zip(
            corners[start : start + 16], dask.compute(*parts[start : start + 16], scheduler="threads"), strict=True
        ):
            total[y : y + sums.shape[0], x : x + sums.shape[1]] = sums
            pacbed += pattern
            low, high, bad = min(low, lo), max(high, hi), bad + nan
        if progress is not None:
            progress(min(1.0, (start + 16) / len(parts)))
    return Summary(pacbed / (ny * nx), total, float(low), float(high), bad)


def _summarise(block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], float, float, int]:
    bad = 0
    if block.dtype.kind == "f":
        finite = np.isfinite(block)
        bad = int(block.size - finite.sum())
        if bad:
            block = np.where(finite, block, 0)
    wide = np.uint64 if block.dtype.kind == "u" else np.int64 if block.dtype.kind == "i" else np.float64
    return (
        block.sum(axis=(2, 3), dtype=wide).astype(np.float64),
        block.sum(axis=(0, 1), dtype=wide).astype(np.float64),
        float(block.min()),
        float(block.max()),
        bad,
    )


def radius_map(shape: tuple[int, int], centre: tuple[float, float] | None = None) -> NDArray[np.float64]:
    """Distance of each detector pixel from the centre (DC by default), in pixels."""
    cy, cx = centre if centre is not None else (shape[0] // 2, shape[1] // 2)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - cy, x - cx)


def virtual_image(
    data: FourDSTEM, inner: float, outer: float, centre: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Sum over an annulus of the detector.

    Parameters
    ----------
    inner, outer : float
        Radii in mrad; inner = 0 is a disk (bright field).
    centre : (y, x), optional
        Detector pixels; DC by default.
    progress : callable, optional
        Told the fraction done; may raise to end the work.

    Returns
    -------
    ndarray
        (Ny, Nx), electrons.

    Raises
    ------
    DataError
        If the detector is not calibrated in mrad, or the annulus holds no pixel.
    """
    pixel = data.calibration.pixel_mrad
    if pixel is None:
        raise DataError("a virtual detector in mrad needs the detector pixel size and the beam energy")
    angle = radius_map(data.detector_shape, centre) * pixel
    inside = (angle >= inner) & (angle < outer)
    if data.mask is not None:
        inside &= data.mask > 0
    if not inside.any():
        raise DataError(f"no detector pixel lies between {inner:g} and {outer:g} mrad")
    weights = inside.astype(np.float32)
    return np.asarray(_per_pattern(data.data, weights, progress))[..., 0]


def bright_field(data: FourDSTEM, fraction: float = 1.0) -> NDArray[np.float64]:
    """Virtual bright field: all within `fraction` of the convergence semi-angle. (Ny, Nx), electrons."""
    return virtual_image(data, 0, fraction * _semi_angle(data))


def annular_dark_field(data: FourDSTEM, inner: float | None = None, outer: float | None = None) -> NDArray[np.float64]:
    """Virtual annular dark field; by default from 1.2 semi-angles to the edge of the detector. (Ny, Nx), electrons."""
    pixel = data.calibration.pixel_mrad or 0
    edge = min(data.detector_shape) / 2 * pixel
    return virtual_image(data, inner if inner is not None else 1.2 * _semi_angle(data), outer or edge)


def pacbed(data: FourDSTEM) -> NDArray[np.float64]:
    """Position-averaged diffraction pattern, (Ky, Kx), electrons."""
    return summary(data).pacbed


def centre_of_mass(data: FourDSTEM, progress: Progress | None = None) -> NDArray[np.float64]:
    """First moment of each pattern against DC, (Ny, Nx, 2) as (y, x), in mrad if calibrated, else pixels."""
    ky, kx = data.detector_shape
    y, x = np.mgrid[:ky, :kx]
    use = np.ones((ky, kx)) if data.mask is None else data.mask
    weights = np.stack([use, (y - ky // 2) * use, (x - kx // 2) * use]).astype(np.float32)
    moments = np.asarray(_per_pattern(data.data, weights, progress))
    with np.errstate(invalid="ignore", divide="ignore"):
        com = np.nan_to_num(moments[..., 1:] / moments[..., :1])
    return com * (data.calibration.pixel_mrad or 1.0)


def _per_pattern(array: Any, weights: NDArray[np.float32], progress: Progress | None = None) -> Any:
    """Weighted sums over the detector, (Ny, Nx, W) float64."""
    stack = weights.reshape(-1, *weights.shape[-2:])
    flat = np.ascontiguousarray(stack.reshape(len(stack), -1).T)

    def block(part: NDArray[Any]) -> NDArray[np.float64]:
        patterns = part.reshape(part.shape[0], part.shape[1], -1)
        # row by row: the float copy stays small
        return np.stack([row.astype(np.float32) @ flat for row in patterns]).astype(np.float64)

    lazy = array.map_blocks(block, dtype=np.float64, drop_axis=[2, 3], new_axis=[2], chunks=(*array.chunks[:2], (len(stack),)))
    if progress is None:
        return lazy.compute(scheduler="threads")
    out, row = [], 0
    for rows in lazy.chunks[0]:  # a row of chunks at a time, so that the work can be watched and ended
        out.append(lazy[row : row + rows].compute(scheduler="threads"))
        row += rows
        progress(row / lazy.shape[0])
    return np.concatenate(out)


@dataclass(frozen=True)
class Rotation:
    """Scan against detector. `angle` in degrees; `transpose` says whether the detector axes must be swapped first."""

    angle: float
    transpose: bool
    curl: NDArray[np.float64]
    angles: NDArray[np.float64]


def estimate_rotation(data: FourDSTEM, com: NDArray[np.float64] | None = None) -> Rotation:
    """Rotation that makes the centre-of-mass field free of curl (it is the gradient of a phase).

    Curl alone leaves θ and θ + 180° (and the sign of the defocus tells them apart), so the angle is in (−90°, 90°].

    Parameters
    ----------
    com : ndarray, optional
        (Ny, Nx, 2) as (y, x), from :func:`centre_of_mass`, to spare its computation.
    """
    field = centre_of_mass(data) if com is None else com
    field = field - field.mean(axis=(0, 1))
    angles = np.arange(-89.0, 91.0, 1.0)

    def curls(fy: NDArray[Any], fx: NDArray[Any]) -> NDArray[np.float64]:
        # curl of the rotated field is linear in (cos, sin): curl cos θ + div sin θ
        dyx, dxy = np.gradient(fx, axis=0), np.gradient(fy, axis=1)
        dyy, dxx = np.gradient(fy, axis=0), np.gradient(fx, axis=1)
        curl, div = dxy - dyx, dxx + dyy
        t = np.radians(angles)[:, None, None]
        return ((curl * np.cos(t) + div * np.sin(t)) ** 2).mean(axis=(1, 2))

    plain, swapped = curls(field[..., 0], field[..., 1]), curls(field[..., 1], field[..., 0])
    transpose = swapped.min() < 0.9 * plain.min()
    best = swapped if transpose else plain
    return Rotation(float(angles[best.argmin()]), bool(transpose), best, angles)


@dataclass(frozen=True)
class Disk:
    """Bright-field disk found in the PACBED: centre (y, x) and radius in detector pixels."""

    centre: tuple[float, float]
    radius: float


def find_disk(pattern: NDArray[np.float64]) -> Disk:
    """Centre and radius of the bright-field disk, by area above half of its typical brightness.

    Raises
    ------
    DataError
        If the pattern is empty.
    """
    if not np.isfinite(pattern).all() or pattern.max() <= 0:
        raise DataError("no bright disk: the average pattern is empty or not finite")
    bright = np.sort(pattern.ravel())[::-1]
    share = np.cumsum(bright) / bright.sum()
    level = np.median(bright[: max(4, int(np.searchsorted(share, 0.6)))]) / 2
    inside = pattern > level
    y, x = np.nonzero(inside)
    return Disk((float(y.mean()), float(x.mean())), float(np.sqrt(inside.sum() / np.pi)))


def find_hot_pixels(data: FourDSTEM, sigma: float = 8.0) -> NDArray[np.bool_]:
    """Detector pixels that stand out of their 3 × 3 surroundings in the PACBED by `sigma` robust deviations."""
    from scipy.ndimage import median_filter

    pattern = pacbed(data)
    smooth = median_filter(pattern, 3)
    diff = pattern - smooth
    # counting noise of the average, beside the general scatter
    scatter = 1.4826 * np.median(np.abs(diff)) + np.sqrt(smooth.clip(0) / np.prod(data.scan_shape))
    step = np.max(np.abs(np.stack(np.gradient(smooth))), axis=0)  # the disk's edge is steep, not hot
    return diff > sigma * scatter + 2 * median_filter(step, 5) + 1e-12


def repair_block(block: NDArray[Any], hot: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Marked detector pixels replaced by the mean of unmarked neighbours, growing until there are some."""
    out = block.astype(np.float32)
    ky, kx = hot.shape
    for y, x in zip(*np.nonzero(hot), strict=True):
        for reach in range(1, max(ky, kx)):
            rows, cols = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
            good = ~hot[rows, cols]
            if good.any():
                out[:, :, y, x] = block[:, :, rows, cols][:, :, good].mean(axis=-1)
                break
    return out


def _semi_angle(data: FourDSTEM) -> float:
    angle = data.calibration.semi_angle
    if angle is None:
        raise DataError("the convergence semi-angle (mrad) is not known")
    return angle


__all__ = [
    "Disk", "Rotation", "Summary", "annular_dark_field", "bright_field", "centre_of_mass", "estimate_rotation",
    "find_disk", "find_hot_pixels", "pacbed", "summary", "virtual_image",
]
