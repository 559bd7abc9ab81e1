"""Fourier ring correlation: to which detail a picture is that of the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

HALF = 0.5  # the correlation of a picture with the truth where signal and error are alike
WIDTH = 5  # rings taken together: the spots of a crystal leave rings between them empty


def ring_correlation(first: Array, second: Array, width: int = WIDTH) -> Array:
    """Fourier ring correlation of two pictures (n, n): one value for each of n/2 rings.

    Both are multiplied by a Hann window, which the edges of a field need (van Heel and Schatz,
    J. Struct. Biol. 151, 250 (2005)). Each value is of `width` rings of one pixel around it, so
    that rings in which a crystal has no spot, where there is but noise, have little weight.

    Raises
    ------
    ValueError
        If they are not square, or of different size.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise ValueError(f"two square pictures of one size, not {first.shape} and {second.shape}")
    a, b = _spectrum(first), _spectrum(second)
    cross = _rings((a * b.conj()).real, width)
    power = _rings(np.square(np.abs(a)), width) * _rings(np.square(np.abs(b)), width)
    return np.asarray(cross / np.sqrt(power + 1e-300))


def ring_resolution(picture: Array, truth: Array, pixel_size: float) -> float | None:
    """Finest detail (Å) up to which the correlation with the truth stays above one half; None where
    the picture has not even the strongest detail of the truth.

    Two pixels are the least that can be told.
    """
    held = _rings(np.square(np.abs(_spectrum(truth))), WIDTH)
    strongest = 1 + int(held[1:].argmax())
    below = np.flatnonzero(ring_correlation(picture, truth)[strongest:] < HALF)
    last = strongest + int(below[0] if len(below) else len(held) - strongest) - 1
    return None if last < strongest else len(truth) * pixel_size / last


def _spectrum(picture: Array) -> NDArray[np.complexfloating]:
    window = np.hanning(len(picture))
    return np.asarray(np.fft.fft2((picture - picture.mean()) * np.outer(window, window)))


def _rings(values: Array, width: int) -> Array:
    """Sums over each of the first n/2 rings with its neighbours, `width` in all."""
    n = len(values)
    f = np.fft.fftfreq(n) * n
    ring = np.rint(np.hypot(f[:, None], f)).astype(int).ravel()
    each = np.bincount(ring, values.ravel())
    return np.asarray(np.convolve(each, np.ones(width), "same")[: n // 2])
