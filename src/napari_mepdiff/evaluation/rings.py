"""Fourier ring correlation: to which detail a picture is that of the truth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

HALF = 0.5  # the correlation of a picture with the truth where signal and error are alike


def ring_correlation(first: Array, second: Array) -> Array:
    """Fourier ring correlation of two pictures (n, n), one value for each ring of one pixel.

    Both are multiplied by a Hann window, which the edges of a field need (van Heel and Schatz,
    J. Struct. Biol. 151, 250 (2005)).

    Raises
    ------
    ValueError
        If they are not square, or of different size.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise ValueError(f"two square pictures of one size, not {first.shape} and {second.shape}")
    n = len(first)
    window = np.outer(np.hanning(n), np.hanning(n))
    a, b = (np.fft.fft2((p - p.mean()) * window) for p in (first, second))
    f = np.fft.fftfreq(n) * n
    ring = np.rint(np.hypot(f[:, None], f)).astype(int).ravel()
    cross = np.bincount(ring, (a * b.conj()).real.ravel())
    power = [np.bincount(ring, np.square(np.abs(x)).ravel()) for x in (a, b)]
    return np.asarray((cross / np.sqrt(power[0] * power[1] + 1e-300))[: n // 2])


def ring_resolution(picture: Array, truth: Array, pixel_size: float) -> float | None:
    """Finest detail (Å) up to which the correlation with the truth stays above one half; None where
    it never is.

    Rings in which the truth has next to nothing, as those between the spots of a crystal, have no
    say.
    """
    n = len(truth)
    correlation = ring_correlation(picture, truth)
    held = _power(truth)
    told = held > 1e-3 * held[1:].max()
    told[0] = False
    bad = np.flatnonzero(told & (correlation < HALF))
    good = np.flatnonzero(told & (correlation >= HALF))
    good = good[good < bad[0]] if len(bad) else good
    if not len(good):
        return None
    return n * pixel_size / float(good[-1])


def _power(picture: Array) -> Array:
    """Mean power of each ring."""
    n = len(picture)
    window = np.outer(np.hanning(n), np.hanning(n))
    power = np.square(np.abs(np.fft.fft2((picture - picture.mean()) * window)))
    f = np.fft.fftfreq(n) * n
    ring = np.rint(np.hypot(f[:, None], f)).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    return np.asarray(mean[: math.ceil(n / 2)][: n // 2])
