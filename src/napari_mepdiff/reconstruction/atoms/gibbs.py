"""Which slices hold the atoms of each column.

Gibbs sampling of whole atoms under a quadratic misfit.

    E(o) = gᵀ(o − m) + ½ (o − m)ᵀ F (o − m) − T Σ b o

o_{s,c} = 0 or 1 atom of species c in slice s, m the point where the misfit was expanded, b the
log-odds of a prior. Moves keep the number of atoms of every species: one atom to another slice, two
atoms at once (of one column or of two), two species of a column exchanged, a whole column moved by
a slice. One place of a column holds one atom at most.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _change(fisher, slope, odds, temperature, index, sign, n):  # type: ignore[no-untyped-def]
    """Energy of n simultaneous changes."""
    total = 0.0
    for p in range(n):
        a = index[p]
        total += sign[p] * (slope[a] - temperature * odds[a])
        for q in range(n):
            total += 0.5 * sign[p] * sign[q] * fisher[a, index[q]]
    return total


@njit(cache=True, nogil=True)
def _chain(fisher, slope, odds, o, full, column, depth, temperature, burn, sweeps, seed):  # type: ignore[no-untyped-def]
    """Run one chain in place; returns the mean over the sweeps."""
    np.random.seed(seed)
    species = len(column)
    mean = np.zeros(o.size)
    index, sign = np.zeros(2 * depth, np.int64), np.zeros(2 * depth)
    for sweep in range(burn + sweeps):
        for _ in range(species * depth):
            c = np.random.randint(species)
            kind = np.random.rand()
            n = 0
            a, b = np.random.randint(depth), np.random.randint(depth)
            if kind < 0.75:
                # one atom to another slice
                if a == b or o[a * species + c] < 0.5 or full[b, column[c]] > 0.5:
                    continue
                index[0], sign[0], index[1], sign[1], n = (
                    a * species + c,
                    -1.0,
                    b * species + c,
                    1.0,
                    2,
                )
                if kind > 0.4:
                    # and another one, of this column or of any
                    e = c if kind < 0.55 else np.random.randint(species)
                    k, m = np.random.randint(depth), np.random.randint(depth)
                    if k == m or o[k * species + e] < 0.5 or full[m, column[e]] > 0.5:
                        continue
                    if column[e] == column[c] and (k in (a, b) or m in (a, b)):
                        continue
                    index[2], sign[2], index[3], sign[3], n = (
                        k * species + e,
                        -1.0,
                        m * species + e,
                        1.0,
                        4,
                    )
            elif kind < 0.9:
                # two species of a column exchange their slices
                e = np.random.randint(species)
                if (
                    e == c
                    or column[e] != column[c]
                    or o[a * species + c] < 0.5
                    or o[b * species + e] < 0.5
                ):
                    e = -1
                    for other in range(species):
                        if (
                            other != c
                            and column[other] == column[c]
                            and o[b * species + other] > 0.5
                        ):
                            e = other
                    if e < 0 or a == b or o[a * species + c] < 0.5:
                        continue
                index[0], sign[0], index[1], sign[1] = a * species + c, -1.0, b * species + c, 1.0
                index[2], sign[2], index[3], sign[3], n = (
                    b * species + e,
                    -1.0,
                    a * species + e,
                    1.0,
                    4,
                )
            else:
                # the whole column, all its species, one slice up or down; what leaves comes in
                # again at the other end
                step = 1 if np.random.rand() < 0.5 else -1
                big = 0
                for e in range(species):
                    if column[e] == column[c]:
                        big += 1
                if big > 1:
                    continue
                for s in range(depth):
                    new, old = o[((s - step) % depth) * species + c], o[s * species + c]
                    if new != old:
                        index[n], sign[n] = s * species + c, new - old
                        n += 1
                if n == 0:
                    continue
            rise = _change(fisher, slope, odds, temperature, index, sign, n)
            if rise <= 0 or np.random.rand() < np.exp(-rise / temperature):
                for p in range(n):
                    i = index[p]
                    o[i] += sign[p]
                    full[i // species, column[i % species]] += sign[p]
                    for q in range(o.size):
                        slope[q] += sign[p] * fisher[i, q]
        if sweep >= burn:
            for q in range(o.size):
                mean[q] += o[q] / sweeps
    return mean


def sample_slices(
    fisher: NDArray[np.float64],
    gradient: NDArray[np.float64],
    expanded: NDArray[np.float64],
    states: NDArray[np.float64],
    column: NDArray[np.int64],
    temperature: float,
    *,
    odds: NDArray[np.float64] | None = None,
    burn: int = 100,
    sweeps: int = 200,
    seed: int = 0,
    poll: Callable[[], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the slices of all atoms in several chains.

    Parameters
    ----------
    fisher : ndarray
        (D·C, D·C), index s · C + c.
    gradient : ndarray
        (D, C), of the misfit at `expanded`.
    expanded : ndarray
        (D, C), m.
    states : ndarray
        (chains, D, C) of 0 and 1, where the chains begin.
    column : ndarray
        (C,), which column each species stands in.
    temperature : float
        1 samples exp(−E).
    odds : ndarray, optional
        (D, C), or (chains, D, C) for each chain its own: log-odds b.
    burn, sweeps : int
        Sweeps that are dropped, and that are averaged.
    poll : callable, optional
        Asked before each chain; what it raises ends the sampling.

    Returns
    -------
    means, states : ndarray
        (chains, D, C): averages over the sweeps, and where the chains ended.
    """
    chains, depth, species = states.shape
    fisher = np.ascontiguousarray(fisher, np.float64)
    ended = np.ascontiguousarray(states.reshape(chains, -1), np.float64).copy()
    slopes = np.ascontiguousarray(
        gradient.reshape(1, -1) + (ended - expanded.reshape(1, -1)) @ fisher, np.float64
    )
    fulls = np.zeros((chains, depth, int(column.max()) + 1))
    for k in range(chains):
        for c in range(species):
            fulls[k, :, column[c]] += states[k, :, c]
    given = np.zeros(states.shape) if odds is None else np.broadcast_to(odds, states.shape)
    bias = np.ascontiguousarray(given.reshape(chains, -1), np.float64)
    seeds = [int(n) for n in np.random.default_rng(seed).integers(0, 2**31, size=(chains,))]
    matrix, owner, means = fisher, column.astype(np.int64), np.zeros_like(ended)

    def run(k: int) -> None:
        if poll is not None:
            poll()
        means[k] = _chain(
            matrix,
            slopes[k],
            bias[k],
            ended[k],
            fulls[k],
            owner,
            depth,
            float(temperature),
            burn,
            sweeps,
            seeds[k],
        )

    with ThreadPoolExecutor(min(chains, os.cpu_count() or 1)) as pool:
        list(pool.map(run, range(chains)))
    return means.reshape(states.shape), ended.reshape(states.shape)


def random_states(
    count: NDArray[np.int64], column: NDArray[np.int64], depth: int, chains: int, seed: int
) -> NDArray[np.float64]:
    """(chains, D, C): every atom in some slice of its column, no two in one place as far as there
    is room.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((chains, depth, len(count)))
    for k in range(chains):
        for j in np.unique(column):
            free = list(rng.permutation(depth))
            for c in np.nonzero(column == j)[0]:
                for _ in range(min(int(count[c]), len(free))):
                    out[k, free.pop(), c] = 1
    return out
