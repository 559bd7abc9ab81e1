"""Least squares of what is left of the patterns by what changes of the microscope do to them.

With r = n − I (counts less model), its variance V and the columns J, the misfit Σ r²/V falls by
bᵀA⁻¹b, where A = Σ JJᵀ/V and b = Σ Jr/V, if the patterns depend on the changes linearly (one
Gauss–Newton step). A and b are kept position by position: so what differs from one position to the
next (its place, its current) is eliminated exactly, and affine maps of the scan are sums of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .changes import LOCAL

AFFINE = ("yy", "yx", "xy", "xx")
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Normal:
    """Normal equations of each position.

    Attributes
    ----------
    names : tuple of str
        Of the C columns.
    products : ndarray
        (B, C + 1, C + 1): Σ over pixels of columns and residual with each other, over V; the
        residual is the last.
    expected : float
        What the misfit would be by shot noise alone.
    """

    names: tuple[str, ...]
    products: Matrix
    expected: float

    @property
    def misfit(self) -> float:
        """Σ r²/V over all."""
        return float(self.products[:, -1, -1].sum())

    def gain(self, wide: Sequence[str], local: Sequence[str] = ()) -> tuple[float, Matrix]:
        """How far the misfit falls, and the coefficients.

        Parameters
        ----------
        wide : sequence of str
            Columns with one coefficient for all positions.
        local : sequence of str
            Columns with one for each position.

        Returns
        -------
        gain : float
        coefficients : ndarray
            Of `wide`, in their order.
        """
        g = [self.names.index(n) for n in wide]
        loc = [self.names.index(n) for n in local]
        p = self.products
        a, b, found = p[:, g][:, :, g], p[:, g, -1], 0.0
        if loc:
            d, e = p[:, loc][:, :, loc], p[:, loc, -1]
            size = np.einsum("bii->bi", d)
            d = d + 1e-9 * np.eye(len(loc)) * (size.mean() + 1e-300)
            right = np.concatenate([p[:, loc][:, :, g], e[:, :, None]], axis=2)
            solved = np.linalg.solve(d, right)
            a = a - np.einsum("blg,blh->bgh", right[:, :, :-1], solved[:, :, :-1])
            b = b - np.einsum("blg,bl->bg", right[:, :, :-1], solved[:, :, -1])
            found = float((e * solved[:, :, -1]).sum())
        if not g:
            return found, np.zeros(0)
        whole, side = a.sum(axis=0), b.sum(axis=0)
        # by their size before, so that what the positions take over entirely stays nothing
        scale = 1 / np.sqrt(np.maximum(np.diag(p[:, g][:, :, g].sum(axis=0)), 1e-300))
        x, *_ = np.linalg.lstsq(scale[:, None] * whole * scale, scale * side, rcond=1e-7)
        return found + float(side @ (scale * x)), scale * x


def with_affine(names: Sequence[str], products: Matrix, places: Matrix) -> tuple[list[str], Matrix]:
    """Columns of an affine map of the positions, and of the electrons of all patterns, added.

    Parameters
    ----------
    names : sequence of str
        C columns, the last of them :data:`LOCAL`.
    products : ndarray
        (B, C + 1, C + 1), the residual last.
    places : ndarray
        (B, 2), Å.
    """
    rel = places - places.mean(axis=0)
    count, c = len(places), len(names)
    more = len(AFFINE) + 1
    turn = np.zeros((count, c + 1, c + 1 + more))
    turn[:, :c, :c] = np.eye(c)
    turn[:, c, -1] = 1
    y, x, current = (list(names).index(n) for n in LOCAL)
    for k, (to, along) in enumerate(((y, 0), (y, 1), (x, 0), (x, 1))):
        turn[:, to, c + k] = rel[:, along]
    turn[:, current, c + len(AFFINE)] = 1
    whole = np.einsum("bij,bik,bkl->bjl", turn, products, turn, optimize=True)
    return [*names, *AFFINE, "electrons"], whole
