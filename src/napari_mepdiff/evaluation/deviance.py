"""Poisson deviance against its expectation: a judgement that needs no ground truth.

The deviance 2 Σ [I − n + n log(n/I)] of counts n under a model I is not one per pixel at low counts, so its expectation is
computed for each intensity. A ratio of 1 says that the model explains the data down to shot noise; it does not say that
the volume is right (free voxels reach it with wrong depth).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray


@functools.cache
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.special import gammaln, xlogy

    intensity = np.concatenate([[0.0], np.geomspace(1e-6, 60, 600)])
    n = np.arange(0, 160)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = xlogy(n, intensity[:, None]) - intensity[:, None] - gammaln(n + 1)
        unit = intensity[:, None] - n + xlogy(n, n) - xlogy(n, intensity[:, None])
    value = 2 * np.where(np.exp(log_p) > 0, np.exp(log_p) * np.nan_to_num(unit, posinf=0), 0).sum(axis=1)
    value[0] = 0
    return intensity, value


def expected_deviance(intensity: ArrayLike) -> NDArray[np.float64]:
    """Expected Poisson deviance per pixel at the given mean counts.

    Parameters
    ----------
    intensity : array
        Electrons per pixel, ≥ 0.

    Returns
    -------
    ndarray
        1 + 1/(6 I) for many electrons (asymptotic series), the exact sum below 60.
    """
    values = np.asarray(intensity, dtype=np.float64)
    at, table = _table()
    many = 1 + 1 / (6 * np.maximum(values, 1))
    return np.where(values < 50, np.interp(values, at, table), many)


def relative_deviance(counts: ArrayLike, model: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Poisson deviance of counts over its expectation under the model; 1 at shot noise.

    Parameters
    ----------
    counts, model : array
        (…, Ky, Kx), electrons; the model must be positive where it is used.
    weight : array, optional
        (Ky, Kx), detector mask.

    Raises
    ------
    ValueError
        If the model is not positive somewhere it is used.
    """
    from scipy.special import xlogy

    n, m = np.asarray(counts, dtype=np.float64), np.asarray(model, dtype=np.float64)
    use = np.ones(n.shape[-2:]) if weight is None else np.asarray(weight, dtype=np.float64)
    if (m[..., use > 0] <= 0).any():
        raise ValueError("the model must be positive: give it a background")
    safe = np.where(m > 0, m, 1)
    deviance = 2 * (safe - n + xlogy(n, n) - n * np.log(safe))
    return float((deviance * use).sum() / (expected_deviance(safe) * use).sum())
