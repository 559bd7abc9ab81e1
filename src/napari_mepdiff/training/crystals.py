"""Random boxes of crystals, drawn afresh each time (paper, appendix A).

Orientation along a, b or c (or any direction), random in-plane rotation, shift and flips, 1 %
vacancies. NumPy alone: processes that draw ahead load no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..specimen.lattice import any_orientation, fill_box, orientation
from ..specimen.packing import MARGIN, Packed, pack
from ..specimen.structures import Structures

VOXEL_SIZE = (1.6, 0.2, 0.2)  # Å
ENERGY = 300.0  # kV: volumes are phases at this energy


def extent(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Å of so many voxels along each axis."""
    (d, h, w), (dz, dy, dx) = shape, VOXEL_SIZE
    return d * dz, h * dy, w * dx


@dataclass(frozen=True)
class Augmentation:
    """How a unit cell becomes a box of atoms.

    Attributes
    ----------
    any_direction : float
        Fraction of draws with the beam along a random direction instead of a, b or c.
    rotate, shift, flip : bool
        Random in-plane rotation; random place in the crystal; random mirror images, along the beam
        too.
    vacancies : float
        Fraction of atoms left out.
    """

    any_direction: float = 0.0
    rotate: bool = True
    shift: bool = True
    flip: bool = True
    vacancies: float = 0.01


class Crystals:
    """Boxes of atoms, batch by batch, each batch with a seed of its own.

    Parameters
    ----------
    structures : Structures
    augmentation : Augmentation
    experimental_weight : float
        How much oftener a structure known from experiment is drawn than one that is only computed.
    seed : int
    """

    def __init__(
        self,
        structures: Structures,
        augmentation: Augmentation | None = None,
        *,
        experimental_weight: float = 4.0,
        seed: int = 0,
    ) -> None:
        self.structures, self.augmentation, self.seed = (
            structures,
            augmentation or Augmentation(),
            seed,
        )
        self.experimental_weight = experimental_weight
        weight = np.where(structures.experimental, experimental_weight, 1.0)
        self._cumulative = np.cumsum(weight) / weight.sum()

    def choose(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Indices (count,) of structures, drawn as in training."""
        found = np.searchsorted(self._cumulative, rng.random(count))
        return found.clip(0, len(self.structures) - 1)

    def atoms(
        self,
        rng: np.random.Generator,
        size: tuple[float, float, float],
        margin: float,
        index: int | None = None,
        axis: int | None = None,
    ) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """One draw: atomic numbers (n,), positions (n, 3) as (z, y, x) in Å. A box without atoms is
        drawn again.
        """
        a = self.augmentation
        for _ in range(100):
            chosen = index if index is not None else int(self.choose(rng, 1)[0])
            cell, numbers, fractional = self.structures.cell(chosen)
            zone_axis = "abc"[int(rng.integers(3)) if axis is None else axis]
            direction = rng.normal(size=3) if rng.random() < a.any_direction else None
            angle = rng.uniform(0, 2 * np.pi) if a.rotate else 0.0
            turned = (
                orientation(cell, zone_axis, angle)
                if direction is None
                else any_orientation(direction, angle)
            )
            shift = rng.random(3) if a.shift else np.zeros(3)
            found, positions = fill_box(cell, numbers, fractional, size, turned, shift, margin)
            if a.flip:
                for k in range(3):
                    if rng.random() < 0.5:
                        positions[:, k] = size[k] - positions[:, k]
            if a.vacancies:
                kept = rng.random(len(found)) >= a.vacancies
                found, positions = found[kept], positions[kept]
            if len(found):
                return found, positions
        raise ValueError(
            "no box of this size holds an atom: it is smaller than the gaps of the crystals"
        )

    def boxes(self, step: int, count: int, shape: tuple[int, int, int] = (8, 64, 64)) -> Packed:
        """The atoms of a batch, sorted for the renderer; the same for the same seed and step."""
        rng = np.random.default_rng([self.seed, step])
        size = extent(shape)
        structures = [self.atoms(rng, size, MARGIN) for _ in range(count)]
        return pack(structures, shape, VOXEL_SIZE)
