"""Which positions are looked at: some hundred, spread over the field, and others to learn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 150  # positions; their patterns say enough, within seconds


def spread_sample(
    positions: NDArray[np.float64], most: int = MOST
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to judge, and as many others that have no part in the judgement.

    Parameters
    ----------
    positions : ndarray
        (N, 2), Å.
    most : int
        Positions of each kind.

    Returns
    -------
    judged, others : ndarray
        Indices, sorted, disjoint; no others where there are fewer than 16 positions.
    """
    count = len(positions)
    if count < 16:
        return np.arange(count), np.zeros(0, np.int64)
    order = np.random.default_rng(0).permutation(count)
    wanted = min(most, (count + 1) // 2)
    judged = _one_in_each_cell(positions, order, wanted)
    left = order[~np.isin(order, judged)]
    return judged, _one_in_each_cell(positions, left, min(most, len(left)))


def _one_in_each_cell(
    positions: NDArray[np.float64], order: NDArray[np.int64], wanted: int
) -> NDArray[np.int64]:
    """Some of `order`, first one of each cell of the field, then a second one, and so on."""
    places = positions[order]
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    size = np.sqrt(max(float(extent.prod()), 1e-12) / wanted)
    cell = np.floor((places - low) / max(size, 1e-9)).astype(np.int64)
    key = cell[:, 0] * (int(cell[:, 1].max()) + 2) + cell[:, 1]
    turn = np.zeros(len(order), np.int64)
    seen: dict[int, int] = {}
    for n, k in enumerate(key.tolist()):
        turn[n] = seen.get(k, 0)
        seen[k] = int(turn[n]) + 1
    return np.sort(order[np.argsort(turn, kind="stable")[:wanted]])
