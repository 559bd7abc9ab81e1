"""A reconstruction laid over the truth: what a measurement cannot fix is taken out first.

Data alone do not say where the specimen lies on the canvas, and hardly how the scan was scaled,
turned and sheared: pictures are compared after the affine map that fits best, positions beyond
their best common affine map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Registration:
    """Where a picture lies on another.

    Attributes
    ----------
    correlation : float
        Pearson's, within the field.
    shift : (y, x)
        Pixels by which the picture is displaced at the middle of the field.
    matrix : ndarray
        (2, 2): the picture's place of a step on the truth.
    """

    correlation: float
    shift: tuple[float, float]
    matrix: NDArray[np.float64]


def register(
    picture: Array,
    truth: Array,
    field: tuple[slice, slice],
    *,
    reach: int = 4,
    evaluations: int = 600,
) -> Registration:
    """Highest correlation of a picture with the truth within a field, over a common affine map.

    Parameters
    ----------
    picture, truth : ndarray
        (H, W) each, of the same pixel size; the same place has the same index but for what is to
        be found.
    field : (slice, slice)
        Rows and columns of the truth that count.
    reach : int
        Pixels within which the shift is first looked for: less than half a lattice spacing, or a
        crystal is laid onto its neighbour cell.
    evaluations : int
        At most so many trials of the affine map (Powell's method).

    Raises
    ------
    ValueError
        If a picture is constant or not finite, or the field is empty.
    """
    from scipy.ndimage import map_coordinates, spline_filter
    from scipy.optimize import minimize

    rows, cols = (np.arange(n)[part] for n, part in zip(truth.shape, field, strict=True))
    if not len(rows) or not len(cols):
        raise ValueError("the field to compare is empty")
    wanted = np.asarray(truth, np.float64)[field].ravel()
    if not (np.isfinite(picture).all() and np.isfinite(wanted).all()):
        raise ValueError("pictures with NaN or infinite values cannot be laid over each other")
    if np.ptp(wanted) == 0 or np.ptp(picture) == 0:
        raise ValueError("a constant picture fits everywhere")
    wanted = wanted - wanted.mean()
    wanted /= np.sqrt((wanted * wanted).sum())
    middle = np.array([rows.mean(), cols.mean()])
    grid = np.stack(np.meshgrid(rows, cols, indexing="ij")).reshape(2, -1) - middle[:, None]
    spline = spline_filter(np.asarray(picture, np.float64))

    def fit(p: Array) -> float:
        at = (np.eye(2) + p[2:].reshape(2, 2) / 100) @ grid + (middle + p[:2])[:, None]
        seen = map_coordinates(spline, at, prefilter=False, mode="nearest")
        seen = seen - seen.mean()
        norm = np.sqrt((seen * seen).sum())
        return float(seen @ wanted / norm) if norm > 0 else 0.0

    starts = [
        np.array([y, x, 0.0, 0.0, 0.0, 0.0])
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
    ]
    start = max(starts, key=fit)
    found = minimize(lambda p: -fit(p), start, method="Powell", options={"maxfev": evaluations})
    best = found.x if -found.fun >= fit(start) else start
    return Registration(
        fit(best), (float(best[0]), float(best[1])), np.eye(2) + best[2:].reshape(2, 2) / 100
    )


def laid(
    picture: Array, found: Registration, field: tuple[slice, slice], shape: tuple[int, int]
) -> Array:
    """A picture as seen through a registration, on the pixels of a field of the truth.

    Parameters
    ----------
    picture : ndarray
        (H, W), as it was registered.
    found : Registration
    field : (slice, slice)
    shape : (H, W)
        Of the truth.
    """
    from scipy.ndimage import map_coordinates

    rows, cols = (np.arange(n)[part] for n, part in zip(shape, field, strict=True))
    middle = np.array([rows.mean(), cols.mean()])
    grid = np.stack(np.meshgrid(rows, cols, indexing="ij")).reshape(2, -1) - middle[:, None]
    at = found.matrix @ grid + (middle + np.asarray(found.shift))[:, None]
    seen = map_coordinates(np.asarray(picture, np.float64), at, order=3, mode="nearest")
    return np.asarray(seen.reshape(len(rows), len(cols)))


def beyond_affine(positions: Array, truth: Array) -> float:
    """Error of positions beyond the best common affine map, rms per axis in their unit.

    Parameters
    ----------
    positions, truth : ndarray
        (N, 2), the same positions in the same order.

    Raises
    ------
    ValueError
        If their shapes differ or there are fewer than 4.
    """
    if positions.shape != truth.shape or positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f"positions are (N, 2) each, got {positions.shape} and {truth.shape}")
    if len(positions) < 4:
        raise ValueError("fewer than 4 positions always fit an affine map")
    known = np.column_stack([positions, np.ones(len(positions))])
    best, *_ = np.linalg.lstsq(known, truth, rcond=None)
    return float(np.sqrt(np.square(known @ best - truth).mean()))
