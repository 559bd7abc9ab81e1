"""Atoms of many boxes sorted by slice and element: what the renderer works through.

NumPy alone, so that processes that only draw crystals need not load PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .atoms import Structure

MARGIN = 4.0  # Å; beyond it a Lobato potential is below 1e-3 of its neighbourhood


@dataclass(frozen=True)
class Packed:
    """Atoms of several boxes in groups of one element in one slice, small groups first.

    Attributes
    ----------
    boxes : int
    shape : (D, H, W)
        Voxels of a box.
    voxel_size : (dz, dy, dx)
        Å.
    pad : (y, x)
        Pixels rendered around the box.
    target, number : ndarray
        (g,) int64, slice (box · D + slice) and atomic number of each group.
    first, count : ndarray
        (g,) int64, its atoms in `place`.
    place : ndarray
        (2, n) float32, row and column on the padded grid, in pixels.
    """

    boxes: int
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    pad: tuple[int, int]
    target: NDArray[np.int64]
    number: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    place: NDArray[np.float32]

    def elements(self, last: int) -> NDArray[np.float32]:
        """(boxes, last): 1 where an atom of that atomic number, H first, lies in the box itself."""
        rows, columns = self.place[0] - self.pad[0], self.place[1] - self.pad[1]
        inside = (rows >= 0) & (rows < self.shape[1]) & (columns >= 0) & (columns < self.shape[2])
        order = np.argsort(self.first, kind="stable")  # groups as their atoms lie in `place`
        some = np.add.reduceat(inside, self.first[order]) > 0 if len(order) else np.zeros(0, bool)
        chosen = order[some]
        out = np.zeros((self.boxes, last), np.float32)
        number = self.number[chosen]
        kept = number <= last
        out[self.target[chosen[kept]] // self.shape[0], number[kept] - 1] = 1
        return out

    def pieces(self, most: int, spread: float = np.inf) -> list[tuple[int, int]]:
        """Ranges of groups, at most so many, the largest no more than `spread` times the
        smallest."""
        out, low = [], 0
        while low < len(self.count):
            end = min(low + most, len(self.count))
            if np.isfinite(spread):
                limit = max(8.0, spread * float(self.count[low]))
                end = min(end, int(np.searchsorted(self.count, limit, side="right")))
            out.append((low, end))
            low = end
        return out


def pack(
    structures: Sequence[Structure],
    shape: tuple[int, int, int],
    voxel_size: tuple[float, float, float],
    margin: float = MARGIN,
) -> Packed:
    """Sort the atoms of several boxes; see :func:`~napari_mepdiff.specimen.render.render_batch` for
    the parameters."""
    depth, height, width = shape
    dz, dy, dx = voxel_size
    pad_y, pad_x = int(np.ceil(margin / dy)), int(np.ceil(margin / dx))
    wide = (height + 2 * pad_y, width + 2 * pad_x)
    keys, where = [np.zeros(0, np.int64)], [np.zeros((2, 0))]
    for index, (numbers, positions) in enumerate(structures):
        slices = np.floor(positions[:, 0] / dz).astype(np.int64)
        rows, columns = positions[:, 1] / dy + pad_y, positions[:, 2] / dx + pad_x
        inside = (
            (slices >= 0)
            & (slices < depth)
            & (rows >= 0)
            & (rows < wide[0])
            & (columns >= 0)
            & (columns < wide[1])
        )
        keys.append(((index * depth + slices[inside]) << 8) + np.asarray(numbers)[inside])
        where.append(np.stack([rows[inside], columns[inside]]))
    key, place = np.concatenate(keys), np.concatenate(where, axis=1)
    order = np.argsort(key, kind="stable")
    groups, count = np.unique(key, return_counts=True)
    # groups of like size together: little padding
    by_size = np.argsort(count, kind="stable")
    first = np.concatenate([[0], np.cumsum(count)])[:-1]
    return Packed(
        len(structures),
        shape,
        voxel_size,
        (pad_y, pad_x),
        groups[by_size] >> 8,
        groups[by_size] & 255,
        first[by_size].astype(np.int64),
        count[by_size].astype(np.int64),
        np.ascontiguousarray(place[:, order], dtype=np.float32),
    )
