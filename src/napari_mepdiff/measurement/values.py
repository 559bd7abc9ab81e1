"""Whether values are counts of electrons, and which detector pixels cannot be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, percentile_filter

from .operations.counts import repair_block
from .reading import Progress, Reading, Summary

FEW = 10.0  # counts a pattern: with fewer, no detector that counts is that dark by chance


@dataclass(frozen=True)
class FaultyPixels:
    """Detector pixels (Ky, Kx) that do not measure.

    Attributes
    ----------
    hot : ndarray
        Stand out of their surroundings in the average pattern.
    dead : ndarray
        Read (nearly) nothing amid counts.
    saturated : ndarray
        At the largest value that the detector gives, in patterns without end.
    bad : ndarray
        NaN or infinite in some pattern.
    """

    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    bad: NDArray[np.bool_]

    @property
    def any(self) -> NDArray[np.bool_]:
        """All of them."""
        return self.hot | self.dead | self.saturated | self.bad


def faulty_pixels(seen: Summary) -> FaultyPixels:
    """Find hot, dead, saturated and undefined pixels in the summary of a measurement."""
    patterns = seen.total.size
    saturated = (seen.top > 0.5 * patterns) if _is_ceiling(seen) else np.zeros(seen.top.shape, bool)
    pattern = _filled(seen.pacbed, saturated)
    dead = np.zeros_like(saturated)
    for _ in range(8):  # a filled gap shows the rest of it
        more = dead_pixels(_filled(pattern, dead), patterns) & ~saturated & ~dead
        if not more.any():
            break
        dead |= more
    hot = hot_pixels(_filled(pattern, dead), patterns) & ~saturated & ~dead
    return FaultyPixels(hot, dead, saturated, seen.bad > 0)


def faulty_in(reading: Reading, progress: Progress | None = None) -> FaultyPixels:
    """Those of a measurement; the pass and what it finds are kept with its patterns.

    Parameters
    ----------
    reading : Reading
    progress : callable, optional
        Told the fraction of the pass; may raise to end it.
    """
    if reading.faulty is None:
        reading.faulty = faulty_pixels(reading.summary(progress))
    found: FaultyPixels = reading.faulty
    return found


def _filled(pattern: NDArray[np.float64], gaps: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Gaps filled from their surroundings."""
    if not gaps.any() or gaps.all():
        return pattern
    filled: NDArray[np.float64] = repair_block(pattern[None, None], gaps)[0, 0].astype(np.float64)
    return filled


def hot_pixels(pacbed: NDArray[np.float64], patterns: int, sigma: float = 8.0) -> NDArray[np.bool_]:
    """Pixels that stand out of their surroundings, by `sigma` robust deviations and to twice.

    Up to three together; a bright rim of a disk is wider.

    Parameters
    ----------
    pacbed : ndarray
        Average pattern (Ky, Kx), counts.
    patterns : int
        How many were averaged.
    """
    smooth = median_filter(pacbed, 3)
    diff = pacbed - smooth
    # counting noise of the average, beside the general scatter; a median of few counts may be 0
    counting = np.sqrt((smooth.clip(0) + 25 / patterns) / patterns)
    scatter = 1.4826 * np.median(np.abs(diff)) + counting
    step = np.max(np.abs(np.stack(np.gradient(smooth))), axis=0)
    # the disk's edge is steep, not hot
    outstanding = pacbed > 2 * percentile_filter(pacbed, 85, size=5)
    hot: NDArray[np.bool_] = outstanding & (
        diff > sigma * scatter + 2 * median_filter(step, 5) + 1e-12
    )
    return hot


def dead_pixels(pacbed: NDArray[np.float64], patterns: int) -> NDArray[np.bool_]:
    """Pixels with less than a hundredth of what surrounds them, where that is not chance.

    A whole row or column that never counts, between others that do, is dead where it is dark too.
    """
    smooth = median_filter(pacbed, 7)
    dead: NDArray[np.bool_] = (pacbed < 0.01 * smooth) & (smooth * patterns > 400)
    for axis in (0, 1):
        line = pacbed.sum(axis=1 - axis)
        gone = (line <= 0) & (median_filter(line, 7) * patterns > 400)
        dead |= np.expand_dims(gone, 1 - axis)
    return dead


def empty_patterns(seen: Summary) -> NDArray[np.bool_]:
    """Dropped frames (Ny, Nx): patterns without one count, where that cannot be chance.

    A lit pattern of μ expected counts is empty with probability exp(−μ).
    """
    empty = seen.total <= 0
    lit = seen.total[~empty]
    if not lit.size:
        return empty
    by_chance = empty.size * np.exp(-float(np.median(lit)))
    return empty if by_chance < 0.01 else np.zeros_like(empty)


def quantum(sample: NDArray[Any]) -> float | None:
    """The step in which values come: 1 for counts, the gain for scaled counts, None if in none.

    Parameters
    ----------
    sample : ndarray
        Some patterns.
    """
    values = np.unique(sample[np.isfinite(sample) & (sample > 0)])
    if values.size < 5:
        return 1.0 if values.dtype.kind in "ui" else None
    if values.dtype.kind in "ui":
        return float(np.gcd.reduce(values.astype(np.int64)))
    values = values.astype(np.float64)
    for part in range(1, 9):  # the smallest value may be a few electrons
        step = values[0] / part
        times = values[values < 500 * step] / step
        if times.size >= 5 and np.abs(times - np.round(times)).max() < 0.02:
            # by the largest of them, which fixes the step best
            return float(values[values < 500 * step][-1] / np.round(times[-1]))
    return None


def scatter(sample: NDArray[Any]) -> tuple[float, float] | None:
    """Variance over mean across the scan, of the darkest pixels and of bright ones.

    1 for counts, the gain for scaled ones. The specimen adds to it, most where many electrons
    arrive: in the darkest fiftieth of the detector shot noise is all there is, in the rest 1 is
    the least that counts can have.

    Parameters
    ----------
    sample : ndarray
        (S, …), patterns from all over the scan.
    """
    if len(sample) < 16:
        return None
    values = np.nan_to_num(sample.astype(np.float64), posinf=0, neginf=0)
    mean, variance = values.mean(axis=0), values.var(axis=0, ddof=1)
    lit = (mean > 0) & (variance > 0)
    if lit.sum() < 50:
        return None
    mean, ratio = mean[lit], variance[lit] / mean[lit]
    darkest = np.argsort(mean)[: max(30, mean.size // 50)]
    bright = mean > 0.05 * np.percentile(mean, 99)
    return float(np.median(ratio[darkest])), float(np.percentile(ratio[bright], 10))


def _is_ceiling(seen: Summary) -> bool:
    """Whether the largest value looks like the detector's limit: 2^n − 1 of whole numbers."""
    if seen.sample.dtype.kind not in "ui":
        return False
    top = int(seen.maximum)
    return top >= 63 and (top + 1) & top == 0
