"""What is wrong with the values themselves: pixels that do not measure, a gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, rank_filter

from ...measurement.values import dead_pixels, hot_pixels, quantum
from ...microscope.counts import gain_of
from .tally import Tally

_ALONE = 6.0  # times its neighbours: a ring or a spot has neighbours like it
_CLEAR = 8.0  # standard deviations
_FEW = 0.02  # of the pixels: more are not faulty pixels
_ROWS, _LONG = 8, 96  # of the scan, for the scatter between neighbours


def faulty_pixels(
    seen: Tally, weight: NDArray[np.float64], edge: NDArray[np.bool_], gain: float = 1.0
) -> NDArray[np.bool_]:
    """Detector pixels (Ky, Kx) whose counts are no electrons, by themselves or against the model.

    Parameters
    ----------
    seen : Tally
    weight : ndarray
        (Ky, Kx); what is masked already is not named again.
    edge : ndarray
        (Ky, Kx): near the edge of the aperture, where a model may be wrong in single pixels.
    gain : float
        Values of one electron.
    """
    count = len(seen.of_position)
    chi2 = np.where(weight > 0, seen.chi2 / gain, 0)
    # the third largest of the neighbourhood: a fault may have a companion
    around = rank_filter(chi2, -3, size=3)
    most = np.maximum(seen.counts + seen.model, gain) / 2
    apart = np.abs(seen.counts - seen.model) / np.sqrt(gain * most)
    alone = (chi2 > _ALONE * np.maximum(around, 1)) & (apart > _CLEAR)
    alone &= chi2 > 4 * np.maximum(median_filter(chi2, 5), 1)
    found = (
        (alone & ~edge)
        | hot_pixels(seen.counts / count / gain, count)
        | dead_pixels(seen.mean / gain, count)
    ) & (weight > 0)
    few = found.sum() <= max(3, _FEW * found.size)
    return np.asarray(found if few else np.zeros_like(found))


@dataclass(frozen=True)
class Gain:
    """What one electron is in the values.

    Attributes
    ----------
    value : float
    exact : bool
        All values come in steps of it.
    """

    value: float
    exact: bool


def gain_in(
    patterns: NDArray[np.generic],
    scan: NDArray[np.float64],
    index: NDArray[np.int64],
    good: NDArray[np.bool_],
    dark: float,
) -> Gain | None:
    """A gain other than 1; None where the values are counts, or nothing can be said.

    Parameters
    ----------
    patterns : ndarray
        (N, Ky, Kx).
    scan : ndarray
        (N, 2), Å: where they were taken.
    index : ndarray
        Some of them, for the steps in which values come.
    good : ndarray
        (Ky, Kx), pixels that measure.
    dark : float
        Misfit over shot noise in the dark field, where the specimen matters least: a gain makes it
        as large as itself.
    """
    step = quantum(patterns[index[:16]][:, good])
    if step is not None:
        return Gain(step, True) if abs(step - 1) > 0.01 else None
    rows = rows_of(scan)
    if not rows:
        return None
    chosen = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, _ROWS).astype(int))]
    length = min(_LONG, *map(len, chosen))
    found = gain_of(np.stack([patterns[r[:length]][:, good] for r in chosen]))
    if found is None:
        return None
    gain, error, other = found
    doubtful = gain <= 5 * error or abs(other - gain) > 0.2 * gain + 2 * error
    if doubtful or abs(gain - 1) < 0.3 or not 0.5 * gain < dark < 3 * gain:
        return None
    return Gain(gain, False)


def rows_of(scan: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Lines of a raster: neighbours one after the other, at least five of them."""
    if len(scan) < 5:
        return []
    steps = np.diff(scan, axis=0)
    usual = np.median(steps, axis=0)
    size = max(float(np.hypot(*usual)), 1e-9)
    ends = np.flatnonzero(np.hypot(*(steps - usual).T) > 0.5 * size) + 1
    return [r for r in np.split(np.arange(len(scan)), ends) if len(r) >= 5]
