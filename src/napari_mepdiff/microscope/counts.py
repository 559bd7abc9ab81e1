"""Gain of the detector and dose, from how much the counts scatter.

Electrons are counted in Poisson statistics: their variance is their mean, so values that are a
gain times counts have variance = gain · mean. The specimen varies too along the scan; differences
of second and fourth order between neighbouring positions remove what varies slowly, and what is
left of it grows as mean², so that variance / mean at small means is the gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..measurement.dataset import FourDSTEM
from ..measurement.reading import Progress, Summary
from ..measurement.values import faulty_pixels, quantum

BUDGET = 24 * 1024**2  # bytes of patterns that are read for it
_ORDERS = ((1.0, -2.0, 1.0), (1.0, -4.0, 6.0, -4.0, 1.0))


@dataclass(frozen=True)
class Counts:
    """What one electron is worth.

    Attributes
    ----------
    gain, error : float or None
        Value of one electron and its standard deviation; None where it cannot be known.
    step : float or None
        Step in which all values come, if in any.
    kind : str
        'counts', 'scaled' (a gain other than 1), 'normalised', or 'unknown'.
    electrons : float or None
        In a pattern, by that gain.
    message : str
        The verdict, in words.
    """

    gain: float | None
    error: float | None
    step: float | None
    kind: Literal["counts", "scaled", "normalised", "unknown"]
    electrons: float | None
    message: str


def estimate_counts(
    data: FourDSTEM, seen: Summary | None = None, progress: Progress | None = None
) -> Counts:
    """Gain and electrons a pattern from the variance between neighbouring scan positions.

    Parameters
    ----------
    data : FourDSTEM
    seen : Summary, optional
        Of an earlier pass.
    progress : callable, optional
        Told the fraction done; may raise to end the work.
    """
    seen = seen or data.reading.summary(progress)
    mean_total = float(seen.total.mean())
    use = np.ones(data.detector_shape, bool) if data.mask is None else data.mask > 0
    use &= ~faulty_pixels(seen).any
    step = quantum(seen.sample[:, use]) if use.any() else None
    own_sum = seen.total.size > 3 and float(seen.total.std()) < 1e-5 * mean_total
    rows = _rows(data, use, progress)
    found = None if rows is None else gain_of(rows)

    def unknown(why: str) -> Counts:
        return Counts(None, None, step, "unknown", None, why)

    if mean_total <= 0:
        return unknown("the patterns are empty")
    if found is None:
        return unknown(
            "the scan has no row of 5 neighbouring positions with counts: the scatter between "
            "neighbours, and with it the gain, cannot be known"
        )
    gain, error, other = found
    doubtful = gain <= 5 * error or abs(other - gain) > 0.2 * abs(gain) + 2 * error
    if step is not None and (not doubtful and abs(gain / step - 1) < 0.25 + 3 * error / step):
        # the step is what the detector or a program multiplied by: exact where the scatter agrees
        gain, error = step, min(error, 0.01 * step)
    elif doubtful:
        return unknown(
            "the values vary along the scan in a way that is not that of counts (no noise, "
            "averaged, noise of the electronics, or a specimen that changes from one position to "
            "the next): the gain cannot be known from them"
        )
    electrons = mean_total / gain
    one = abs(gain - 1) < 0.15
    kind: Literal["counts", "scaled", "normalised"] = (
        "normalised" if own_sum or mean_total < 10 else "counts" if one else "scaled"
    )
    said = {
        "counts": "counts of electrons, scattering as they should",
        "scaled": f"one electron is {gain:.4g}: divide by it (gain in the preparation)",
        "normalised": f"the patterns sum to {mean_total:.4g} and are normalised: by their scatter "
        f"one electron is {gain:.4g}; divide by it (gain in the preparation)",
    }[kind]
    return Counts(gain, error, step, kind, electrons, said)


def gain_of(rows: NDArray[Any]) -> tuple[float, float, float] | None:
    """Gain, its error, and the gain by differences of the other (second) order.

    Parameters
    ----------
    rows : ndarray
        (R, Nx, P): patterns along R lines of the scan, as lists of pixels.

    Returns
    -------
    tuple or None
        None where there are too few positions or counts.
    """
    if rows.shape[1] < 5 or rows.shape[2] < 16:
        return None
    values = rows.astype(np.float32)
    mean = values.mean(axis=(0, 1), dtype=np.float64)
    lit = mean > 0
    if lit.sum() < 16:
        return None
    gains, bright = [], 0.0
    lights = mean > 0.3 * np.percentile(mean, 99.5)
    for order in _ORDERS:
        weights = np.array(order)
        length = rows.shape[1] - len(order) + 1
        diff = np.zeros((values.shape[0], length, values.shape[2]), np.float32)
        for n, w in enumerate(order):
            diff += np.float32(w) * values[:, n : n + length]
        squares = np.square(diff).mean(axis=(0, 1), dtype=np.float64)
        variance: NDArray[np.float64] = squares / float(weights @ weights)
        bright = float(variance[lights].sum() / mean[lights].sum())
        gains.append(_at_zero(mean[lit], variance[lit]))
    (second, _), (fourth, error) = gains
    if bright > 12 * abs(fourth):
        # dark pixels with noise of the electronics instead of counts, or a specimen that is all
        # contrast: neither is a gain
        return fourth, abs(fourth), second
    return fourth, float(np.hypot(error, 0.05 * fourth)), second  # 5 %: what the specimen leaves


def _at_zero(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> tuple[float, float]:
    """variance / mean where the mean goes to 0, and its error; in groups of similar means."""
    order = np.argsort(mean)
    parts = np.array_split(order, int(min(32, max(4, len(order) // 8))))
    m = np.array([mean[p].mean() for p in parts])
    # sums, not means of ratios: a pixel with one count would weigh as much as one with a thousand
    ratio = np.array([variance[p].sum() / mean[p].sum() for p in parts])
    scatter = np.array(
        [
            (variance[p] - r * mean[p]).std() / np.sqrt(len(p)) / mean[p].mean()
            for p, r in zip(parts, ratio, strict=True)
        ]
    )
    # beyond the bright disk, where the detector shows any of that, the specimen adds least
    dark = m < 0.1 * m.max()
    if dark.sum() >= 4 and dark.sum() < len(m):
        m, ratio, scatter = m[dark], ratio[dark], scatter[dark]
    weight = 1 / np.maximum(scatter, 1e-3 * np.median(np.abs(ratio)) + 1e-300)
    design = np.column_stack([np.ones_like(m), m / m.max()])
    found = np.linalg.lstsq(design * weight[:, None], ratio * weight, rcond=None)[0]
    rest = (ratio - design @ found) * weight
    inverse = np.linalg.inv((design * weight[:, None]).T @ (design * weight[:, None]))
    spread = max(1.0, float(rest @ rest) / max(1, len(m) - 2))
    return float(found[0]), float(np.sqrt(inverse[0, 0] * spread))


def _rows(
    data: FourDSTEM, use: NDArray[np.bool_], progress: Progress | None
) -> NDArray[Any] | None:
    """(R, Nx, P): some lines of the scan, spread over it, as far as the budget goes."""
    ny, nx, ky, kx = data.shape
    along = np.asarray if nx >= 5 else None
    if along is None or not use.any():
        return None
    length = int(min(nx, 128))
    count = int(np.clip(BUDGET // (length * ky * kx * 4), 1, min(ny, 16)))
    out = []
    for n, row in enumerate(np.unique(np.linspace(0, ny - 1, count).round().astype(int))):
        part = np.asarray(data.data[int(row), :length])
        out.append(np.nan_to_num(part[:, use]))
        if progress is not None:
            progress((n + 1) / count)
    return np.stack(out)
