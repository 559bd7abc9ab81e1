"""Sums over the positions that are looked at: by pixel, by angle, by position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...physics.misfit import relative_deviance
from .model import Modelled, Stack
from .result import Pictures

Report = Callable[[float], None]
_PART = 0.1  # of the mean counts of a pixel that its variance has at least
_LEAST = 1e-6  # of the mean counts of a pixel: what is dark in data and model alike


@dataclass(frozen=True)
class Tally:
    """What a first pass brings.

    Attributes
    ----------
    counts, model : ndarray
        (Ky, Kx), electrons: sums over the positions.
    squares : ndarray
        (Ky, Kx): Σ (n − I)².
    mean : ndarray
        (Ky, Kx): mean counts of a pattern, not below a small part of a pixel's share.
    of_position : ndarray
        (B,): misfit of each position over shot noise.
    misfit : float
        Poisson deviance over its expectation.
    totals : ndarray
        (B, 2): counts and modelled electrons of each position.
    """

    counts: NDArray[np.float64]
    model: NDArray[np.float64]
    squares: NDArray[np.float64]
    mean: NDArray[np.float64]
    of_position: NDArray[np.float64]
    misfit: float
    totals: NDArray[np.float64]

    @property
    def chi2(self) -> NDArray[np.float64]:
        """Mean squared residual of each pixel over its variance."""
        variance = (self.counts + self.model) / 2
        floor = _LEAST * max(float(variance.mean()), 1e-300)
        return np.asarray(self.squares / np.maximum(variance, floor))


def tally(
    model: Modelled,
    index: NDArray[np.int64],
    weight: NDArray[np.float64],
    report: Report,
    size: int = 16,
) -> Tally:
    """Go through the positions once.

    Parameters
    ----------
    index : ndarray
        (B,) positions.
    weight : ndarray
        (Ky, Kx), of detector pixels.
    report : callable
        Told the fraction done; may raise.
    size : int
        Positions at once.
    """
    counts = np.zeros(weight.shape)
    total, squares = np.zeros_like(counts), np.zeros_like(counts)
    each, sums = [], []
    for low in range(0, len(index), size):
        part = index[low : low + size]
        n, i = model.counts(part), model.patterns(part)
        counts += n.sum(axis=0)
        total += i.sum(axis=0)
        squares += np.square(n - i).sum(axis=0)
        each += [relative_deviance(a, b, weight) for a, b in zip(n, i, strict=True)]
        sums += [((a * weight).sum(), (b * weight).sum()) for a, b in zip(n, i, strict=True)]
        report(min(1.0, (low + size) / len(index)))
    mean = counts / len(index)
    floor = _LEAST * max(float(mean.mean()), 1e-300)
    misfits = np.array(each)
    return Tally(
        counts,
        total,
        squares,
        np.maximum(mean, floor),
        misfits,
        float(misfits.mean()),
        np.array(sums),
    )


def variance(model: Stack, seen: Tally, gain: float) -> Stack:
    """What (n − I)² is expected to be, or a little more.

    Where the model has no electrons at all and the data have, the model alone would let one pixel
    outweigh all others: a part of the mean counts stands beside it.
    """
    return gain * (model + _PART * seen.mean)


def pictures(
    seen: Tally,
    weight: NDArray[np.float64],
    pixel_mrad: tuple[float, float],
    aperture: float | None,
    places: NDArray[np.float64],
) -> Pictures:
    """Misfit over the detector, against the angle, and over the field."""
    count = len(places)
    noise = np.sqrt(np.maximum((seen.counts + seen.model) / 2 / count, 1e-12))
    lit = weight > 0
    residual = np.where(lit, (seen.counts - seen.model) / count / noise, np.nan)
    chi2 = np.where(lit, seen.chi2, np.nan)
    angle = angles_of(weight.shape, pixel_mrad)
    width = max(pixel_mrad)
    ring = np.floor(angle / width + 0.5).astype(int)
    inside = lit & (ring <= min(weight.shape) // 2)
    number = np.bincount(ring[inside])
    there = number > 0

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(ring[inside], values[inside])
        return np.asarray(sums[there] / number[there])

    return Pictures(
        residual,
        chi2,
        pixel_mrad,
        aperture,
        mean(angle),
        mean(residual),
        mean(chi2),
        places,
        seen.of_position,
    )


def angles_of(shape: tuple[int, ...], pixel_mrad: tuple[float, float]) -> NDArray[np.float64]:
    """Scattering angle (Ky, Kx) in mrad, DC at the centre."""
    y, x = ((np.arange(n) - n // 2) * p for n, p in zip(shape, pixel_mrad, strict=True))
    return np.hypot(y[:, None], x[None, :])
