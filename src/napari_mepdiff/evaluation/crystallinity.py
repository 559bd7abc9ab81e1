"""Whether volumes look like crystals: intensities, power spectrum, periodicity, atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Statistics:
    """Of a set of volumes.

    Attributes
    ----------
    bins, histogram : ndarray
        Centres in rad, share of voxels in each.
    frequency, power : ndarray
        Å⁻¹; mean power of a slice over directions, in rad².
    periodicity : ndarray
        (N,), see :func:`periodicity`.
    atoms : ndarray
        (N · D,), see :func:`atoms_per_slice`.
    spread : ndarray
        (N,), share of the variance that lies along depth: 0 for volumes that are even over depth.
    mean, peak : ndarray
        (N,), rad.
    """

    bins: Array
    histogram: Array
    frequency: Array
    power: Array
    periodicity: Array
    atoms: Array
    spread: Array
    mean: Array
    peak: Array


def statistics(volumes: Array, pixel_size: float = 0.2, top: float = 1.0) -> Statistics:
    """All statistics of volumes (N, D, H, W) in rad."""
    volumes = np.asarray(volumes, dtype=np.float64)
    edges = np.linspace(-0.1, top, 111)
    histogram, _ = np.histogram(volumes.clip(edges[0], edges[-1]), bins=edges)
    height, width = volumes.shape[2:]
    spectrum = np.abs(np.fft.fft2(volumes)) ** 2 / (height * width)
    k = np.hypot(
        np.fft.fftfreq(height, pixel_size)[:, None], np.fft.fftfreq(width, pixel_size)[None]
    )
    step = 1 / (min(height, width) * pixel_size)
    ring = np.round(k / step).astype(int)
    rings = min(height, width) // 2
    power = (
        np.bincount(ring.ravel(), spectrum.mean(axis=(0, 1)).ravel())[:rings]
        / np.bincount(ring.ravel())[:rings]
    )
    even = volumes.mean(axis=1, keepdims=True)
    total = volumes.var(axis=(1, 2, 3))
    return Statistics(
        (edges[1:] + edges[:-1]) / 2,
        histogram / volumes.size,
        np.arange(rings) * step,
        power,
        np.array([periodicity(v, pixel_size) for v in volumes]),
        np.concatenate([atoms_per_slice(v, pixel_size) for v in volumes]),
        (volumes - even).var(axis=(1, 2, 3)) / np.maximum(total, 1e-12),
        volumes.mean(axis=(1, 2, 3)),
        volumes.max(axis=(1, 2, 3)),
    )


def periodicity(volume: Array, pixel_size: float = 0.2, nearest: float = 1.6) -> float:
    """How well the volume repeats laterally: the largest correlation with itself moved by at least
    `nearest` Å.

    Only the part that overlaps counts, at least a quarter of the field; 1 for a perfect crystal
    seen along an axis that repeats.
    """
    image = np.asarray(volume, dtype=np.float64)
    image = image - image.mean()
    _depth, height, width = image.shape
    shape = (2 * height, 2 * width)
    ones = np.zeros(shape)
    ones[:height, :width] = 1
    spectrum = np.fft.rfft2(image, s=shape)
    cross = np.fft.irfft2((np.abs(spectrum) ** 2).sum(axis=0), s=shape)
    cover = np.fft.rfft2(ones)
    squares = np.fft.rfft2((image**2).sum(axis=0), s=shape)
    energy = np.fft.irfft2(
        np.conj(cover) * squares, s=shape
    )  # of the part that a move leaves inside
    mirrored = np.roll(energy[::-1, ::-1], (1, 1), axis=(0, 1))
    count = np.fft.irfft2(np.abs(cover) ** 2, s=shape)
    y = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None] * pixel_size
    x = np.fft.fftfreq(shape[1], 1 / shape[1])[None] * pixel_size
    allowed = (np.hypot(y, x) >= nearest) & (count > 0.25 * height * width)
    value = cross / np.sqrt(np.maximum(energy * mirrored, 1e-12))
    return float(value[allowed].max()) if allowed.any() else 0.0


def atoms_per_slice(
    volume: Array, pixel_size: float = 0.2, least: float = 0.06, apart: float = 0.6
) -> Array:
    """Peaks in each slice that are higher than `least` rad and highest within `apart` Å, (D,)."""
    from scipy.ndimage import maximum_filter

    size = 2 * max(1, round(apart / pixel_size)) + 1
    volume = np.asarray(volume)
    best = maximum_filter(volume, size=(1, size, size))
    return ((volume == best) & (volume > least)).sum(axis=(1, 2)).astype(float)
