"""A stream of augmented phase volumes, drawn afresh each time (paper, appendix A).

Every batch has a seed of its own, so a stream that is resumed at batch n goes on exactly as if it
had never stopped, and other processes may draw ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..specimen.packing import MARGIN, Packed
from ..specimen.render import render_batch, render_packed
from .crystals import ENERGY, VOXEL_SIZE, Augmentation, Crystals, extent

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ENERGY", "VOXEL_SIZE", "Augmentation", "CrystalStream", "extent"]


class CrystalStream(Crystals):
    """Batches of phase volumes; see :class:`~.crystals.Crystals` for the parameters."""

    def batch(
        self, step: int, count: int, shape: tuple[int, int, int] = (8, 64, 64), device: str = "cpu"
    ) -> Tensor:
        """Volumes (count, D, H, W) in rad; the same for the same seed and step."""
        return self.volumes(self.boxes(step, count, shape), device)

    @staticmethod
    def volumes(boxes: Packed, device: str = "cpu") -> Tensor:
        """Volumes (count, D, H, W) in rad of the boxes of a batch."""
        return render_packed(boxes, energy=ENERGY, device=device)

    def fixed(
        self,
        shape: tuple[int, int, int] = (8, 64, 64),
        axes: tuple[int, ...] = (0, 1, 2),
        limit: int | None = None,
    ) -> tuple[Tensor, list[tuple[NDArray[np.integer], NDArray[np.float64]]], list[str]]:
        """Every structure once per axis, always the same volumes: for validation and test.

        Returns
        -------
        volumes (n, D, H, W) in rad; their atoms; names like "mp-1 a".
        """
        size = extent(shape)
        structures, names = [], []
        for index, name in enumerate(self.structures.names):
            for axis in axes:
                rng = np.random.default_rng([self.seed, *name.encode(), axis])
                structures.append(self.atoms(rng, size, MARGIN, index=index, axis=axis))
                names.append(f"{name} {'abc'[axis]}")
                if limit is not None and len(names) == limit:
                    return (
                        render_batch(structures, shape, VOXEL_SIZE, energy=ENERGY),
                        structures,
                        names,
                    )
        return render_batch(structures, shape, VOXEL_SIZE, energy=ENERGY), structures, names
