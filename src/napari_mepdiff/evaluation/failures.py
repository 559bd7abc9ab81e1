"""What is wrong with a reconstruction, in the words of the paper (section 6, figures 9 and 10):
slices in the wrong order, depth blurred, atoms missing or too many, another structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import correlation

Array = NDArray[Any]
RADIUS = 0.35  # Å around an atom's place
ORDER = 0.1  # gain in correlation by putting slices into another order that counts as misordering
CONTRAST = 0.7  # of the truth's depth variation below which a volume is blurred
STRUCTURE = 0.7  # correlation in the best order below which the structure is another one
SHARE = 0.1  # of all atoms: more missing or extra ones than that are a failure of the crystal


@dataclass(frozen=True)
class Failures:
    """Counts of one reconstruction.

    Attributes
    ----------
    atoms : int
        Places in columns and slices that hold atoms in the truth.
    missing, extra : int
        Places that hold one in the truth only, or in the reconstruction only.
    moved_slices : int
        Slices that lie elsewhere in the best order, if that order is clearly better.
    contrast : float
        Depth variation over the truth's, 1 if as sharp.
    structure : float
        Correlation with the truth in the best order of slices.
    """

    atoms: int
    missing: int
    extra: int
    moved_slices: int
    contrast: float
    structure: float

    def names(self) -> list[str]:
        """The failures that it shows; empty if none."""
        out = []
        if self.moved_slices:
            out.append("slices in the wrong order")
        if self.contrast < CONTRAST:
            out.append("blurred in depth")
        if self.missing > SHARE * self.atoms:
            out.append("missing atoms")
        if self.extra > SHARE * self.atoms:
            out.append("extra atoms")
        if self.structure < STRUCTURE:
            out.append("another structure")
        return out


def failures(
    test: Array, truth: Array, atoms: dict[str, Array], voxel_size: tuple[float, float, float]
) -> Failures:
    """Count what is wrong.

    Parameters
    ----------
    test, truth : ndarray
        (D, H, W), any scale.
    atoms : dict
        ``positions`` (n, 3) as (z, y, x) in Å from voxel (0, 0, 0).
    voxel_size : (dz, dy, dx)
        Å.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if test.shape != truth.shape:
        raise ValueError(
            f"the reconstruction is {test.shape}, the truth {truth.shape}: compare like with like"
        )
    a, b = np.asarray(truth, dtype=np.float64), np.asarray(test, dtype=np.float64)
    a, b = a - a.min(), b - b.min()
    b = (
        b * (a.sum(0) * b.sum(0)).sum() / max((b.sum(0) ** 2).sum(), 1e-30)
    )  # the sum is known best: scale by it
    held, found = _places(a, b, np.asarray(atoms["positions"], dtype=np.float64), voxel_size)
    order, gain = _best_order(a, b)
    variation = [v - v.mean(axis=0) for v in (a, b)]
    return Failures(
        atoms=int(held.sum()),
        missing=int((held & ~found).sum()),
        extra=int((found & ~held).sum()),
        moved_slices=int((order != np.arange(len(order))).sum()) if gain > ORDER else 0,
        contrast=float(np.sqrt((variation[1] ** 2).sum() / max((variation[0] ** 2).sum(), 1e-30))),
        structure=correlation(a, b[order] if gain > ORDER else b),
    )


def _places(
    truth: Array, test: Array, positions: Array, voxel_size: tuple[float, float, float]
) -> tuple[Array, Array]:
    """Whether each column and slice (columns, D) holds an atom, in the truth and in the
    reconstruction.
    """
    depth, height, width = truth.shape
    dz, dy, dx = voxel_size
    y, x = np.arange(height)[:, None] * dy, np.arange(width)[None] * dx
    left, held, found = list(range(len(positions))), [], []
    while left:
        own = [i for i in left if np.hypot(*(positions[i, 1:] - positions[left[0], 1:])) <= RADIUS]
        left = [i for i in left if i not in own]
        centre = positions[own, 1:].mean(axis=0)
        disc = np.hypot(y - centre[0], x - centre[1]) <= RADIUS
        slices = np.clip((positions[own, 0] / dz).astype(int), 0, depth - 1)
        here = np.zeros(depth, dtype=bool)
        here[slices] = True
        levels = truth[:, disc].mean(axis=1)
        # half way between the faintest atom of the column and what its empty slices have from its
        # neighbours
        low = levels[~here].max() if (~here).any() else 0.0
        bar = (levels[here].min() + min(low, levels[here].min())) / 2
        held.append(here)
        found.append(test[:, disc].mean(axis=1) > bar)
    if not held:
        return np.zeros((0, depth), bool), np.zeros((0, depth), bool)
    return np.array(held), np.array(found)


def _best_order(truth: Array, test: Array) -> tuple[NDArray[np.int64], float]:
    """Order of the reconstruction's slices that fits the truth best, and what it gains in mean
    correlation.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = truth - truth.mean(axis=0), test - test.mean(axis=0)
    table = np.array([[correlation(p, q) for q in b] for p in a])
    rows, order = linear_sum_assignment(-table)
    return order.astype(np.int64), float(table[rows, order].mean() - np.diag(table).mean())
