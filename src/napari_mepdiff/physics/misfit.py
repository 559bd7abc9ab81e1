"""How far modelled patterns are from measured ones, and how far they must be: misfits, shot noise,
deviance.

With the modelled intensity I (electrons per pixel, background included) and the counts n, summed
over positions and detector pixels:

- ``intensity``: Σ (I − n)², the paper's ‖f(x) − y‖² (section 2);
- ``amplitude``: Σ (√I − √n)²;
- ``poisson``: Σ I − n + n log(n/I), half the Poisson deviance.

The deviance of counts is not one per pixel where there are few, so its expectation is computed for
each intensity. A ratio of 1 says that the model explains the data down to shot noise; it does not
say that the volume is right (free voxels reach it with wrong depth).
"""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Misfit = Literal["intensity", "amplitude", "poisson"]


class Measured(Protocol):
    """What :func:`shot_noise` asks of a likelihood."""

    @property
    def mean_pattern(self) -> NDArray[np.float64]:
        """Mean of all measured patterns, (Ky, Kx), electrons, DC at the centre."""
        ...

    @property
    def weight(self) -> Tensor:
        """Detector weights in use, (Ky, Kx), DC at the centre."""
        ...


# ---- misfits ------------------------------------------------------------------------------------
def misfit(
    kind: Misfit, model: Tensor, counts: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Misfit of modelled intensities and its derivative.

    Parameters
    ----------
    kind : 'intensity', 'amplitude' or 'poisson'
    model, counts : Tensor
        (B, Ky, Kx), electrons.
    weight : Tensor, optional
        (Ky, Kx), of detector pixels.

    Returns
    -------
    loss : Tensor
        float64, of no dimension, on the device of the model.
    slope : Tensor
        ∂L/∂I, (B, Ky, Kx).
    """
    if kind == "intensity":
        diff = model - counts
        value, slope = diff.square(), 2 * diff
    elif kind == "amplitude":
        root = model.sqrt()
        diff = root - counts.sqrt()
        value, slope = diff.square(), diff / root
    else:
        ratio = torch.where(counts > 0, counts / model, 1.0)
        value = model - counts + counts * ratio.log()
        slope = 1 - counts / model
    if weight is not None:
        value, slope = value * weight, slope * weight
    return value.sum(dtype=torch.float64), slope


def default_background(probe: Tensor) -> float:
    """Electrons per pixel that keep logarithm and root finite: 6e-5 of the probe's mean intensity.

    That is 1e-3 under the paper's conditions, and means the same at every dose.
    """
    return max(
        6e-5 * float(probe.abs().square().sum()) / (probe.shape[-1] * probe.shape[-2]), 1e-30
    )


def shot_noise(measured: Measured, kind: Misfit) -> float:
    """Expected misfit per pattern of a perfect model: the scale that frees losses of dose and
    detector.

    intensity: Σ n; Poisson: half the expected deviance, amplitude: a quarter, both at the mean
    pattern.
    """
    counts = measured.mean_pattern
    weight = measured.weight.double().cpu().numpy()
    if kind == "intensity":
        return float((counts * weight).sum())
    deviance = float((expected_deviance(counts) * weight).sum())
    return deviance / 2 if kind == "poisson" else deviance / 4


# ---- deviance -----------------------------------------------------------------------------------
@functools.cache
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.special import gammaln, xlogy

    intensity = np.concatenate([[0.0], np.geomspace(1e-6, 60, 600)])
    n = np.arange(0, 160)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = xlogy(n, intensity[:, None]) - intensity[:, None] - gammaln(n + 1)
        unit = intensity[:, None] - n + xlogy(n, n) - xlogy(n, intensity[:, None])
    value = 2 * np.where(np.exp(log_p) > 0, np.exp(log_p) * np.nan_to_num(unit, posinf=0), 0).sum(
        axis=1
    )
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


def relative_deviance(
    counts: ArrayLike, model: ArrayLike, weight: ArrayLike | None = None
) -> float:
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
