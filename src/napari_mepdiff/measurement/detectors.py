"""Virtual detectors, and what patterns tell of themselves: disk, centre of mass, hot pixels.

All work chunk by chunk, so memory stays at a few chunks whatever the size of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import DataError, FourDSTEM
from .reading import Progress, Summary
from .values import hot_pixels


def summary(data: FourDSTEM, progress: Progress | None = None) -> Summary:
    """PACBED, totals, range and faulty values; one pass, kept with the patterns."""
    return data.reading.summary(progress)


def radius_map(
    shape: tuple[int, int], centre: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Distance of each detector pixel from the centre (DC by default), in pixels."""
    cy, cx = centre if centre is not None else (shape[0] // 2, shape[1] // 2)
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius: NDArray[np.float64] = np.hypot(y - cy, x - cx)
    return radius


def virtual_image(
    data: FourDSTEM,
    inner: float,
    outer: float,
    centre: tuple[float, float] | None = None,
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
        raise DataError(
            "a virtual detector in mrad needs the detector pixel size and the beam energy"
        )
    angle = radius_map(data.detector_shape, centre) * pixel
    inside = (angle >= inner) & (angle < outer)
    if data.mask is not None:
        inside &= data.mask > 0
    if not inside.any():
        raise DataError(f"no detector pixel lies between {inner:g} and {outer:g} mrad")
    weights = inside.astype(np.float32)
    return np.asarray(_per_pattern(data.data, weights, progress))[..., 0]


def bright_field(data: FourDSTEM, fraction: float = 1.0) -> NDArray[np.float64]:
    """Virtual bright field, (Ny, Nx), electrons: all within `fraction` of the semi-angle."""
    return virtual_image(data, 0, fraction * _semi_angle(data))


def annular_dark_field(
    data: FourDSTEM, inner: float | None = None, outer: float | None = None
) -> NDArray[np.float64]:
    """Virtual annular dark field, (Ny, Nx), electrons.

    By default from 1.2 semi-angles to the edge of the detector.
    """
    pixel = data.calibration.pixel_mrad or 0
    edge = min(data.detector_shape) / 2 * pixel
    return virtual_image(
        data, inner if inner is not None else 1.2 * _semi_angle(data), outer or edge
    )


def pacbed(data: FourDSTEM) -> NDArray[np.float64]:
    """Position-averaged diffraction pattern, (Ky, Kx), electrons."""
    return summary(data).pacbed


def centre_of_mass(data: FourDSTEM, progress: Progress | None = None) -> NDArray[np.float64]:
    """First moment of each pattern against DC, (Ny, Nx, 2) as (y, x).

    In mrad if the detector is calibrated, else in pixels.
    """
    ky, kx = data.detector_shape
    y, x = np.mgrid[:ky, :kx]
    use = np.ones((ky, kx)) if data.mask is None else data.mask
    weights = np.stack([use, (y - ky // 2) * use, (x - kx // 2) * use]).astype(np.float32)
    moments = np.asarray(_per_pattern(data.data, weights, progress))
    with np.errstate(invalid="ignore", divide="ignore"):
        com: NDArray[np.float64] = np.nan_to_num(moments[..., 1:] / moments[..., :1])
    return com * (data.calibration.pixel_mrad or 1.0)


def _per_pattern(array: Any, weights: NDArray[np.float32], progress: Progress | None = None) -> Any:
    """Weighted sums over the detector, (Ny, Nx, W) float64."""
    stack = weights.reshape(-1, *weights.shape[-2:])
    flat = np.ascontiguousarray(stack.reshape(len(stack), -1).T)

    def block(part: NDArray[Any]) -> NDArray[np.float64]:
        patterns = part.reshape(part.shape[0], part.shape[1], -1)
        # row by row: the float copy stays small
        return np.stack([row.astype(np.float32) @ flat for row in patterns]).astype(np.float64)

    lazy = array.map_blocks(
        block,
        dtype=np.float64,
        drop_axis=[2, 3],
        new_axis=[2],
        chunks=(*array.chunks[:2], (len(stack),)),
    )
    if progress is None:
        return lazy.compute(scheduler="threads")
    out, row = [], 0
    for rows in lazy.chunks[
        0
    ]:  # a row of chunks at a time, so that the work can be watched and ended
        out.append(lazy[row : row + rows].compute(scheduler="threads"))
        row += rows
        progress(row / lazy.shape[0])
    return np.concatenate(out)


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
    """Detector pixels (Ky, Kx) that stand out of their surroundings in the average pattern.

    See :func:`~napari_mepdiff.measurement.values.hot_pixels`.
    """
    return hot_pixels(pacbed(data), int(np.prod(data.scan_shape)), sigma)


def _semi_angle(data: FourDSTEM) -> float:
    angle = data.calibration.semi_angle
    if angle is None:
        raise DataError("the convergence semi-angle (mrad) is not known")
    return angle


__all__ = [
    "Disk",
    "Summary",
    "annular_dark_field",
    "bright_field",
    "centre_of_mass",
    "find_disk",
    "find_hot_pixels",
    "pacbed",
    "summary",
    "virtual_image",
]
