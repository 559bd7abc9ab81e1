"""A stream of augmented phase volumes, drawn afresh each time (paper, appendix A).

Orientation along a, b or c (or any direction), random in-plane rotation, shift and flips, 1 % vacancies. Every batch has a seed of
its own, so a stream that is resumed at batch n goes on exactly as if it had never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .structures import Structures

if TYPE_CHECKING:
    from torch import Tensor

VOXEL_SIZE = (1.6, 0.2, 0.2)  # Å
ENERGY = 300.0  # kV: volumes are phases at this energy


@dataclass(frozen=True)
class Augmentation:
    """How a unit cell becomes a box of atoms.

    Attributes
    ----------
    any_direction : float
        Fraction of draws with the beam along a random direction instead of a, b or c.
    rotate, shift, flip : bool
        Random in-plane rotation; random place in the crystal; random mirror images, along the beam too.
    vacancies : float
        Fraction of atoms left out.
    """

    any_direction: float = 0.0
    rotate: bool = True
    shift: bool = True
    flip: bool = True
    vacancies: float = 0.01


def turn_of(cell: NDArray[np.float64], axis: int | NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rotation (3, 3) that brings lattice vector `axis` (or a direction x, y, z) onto +z, then turns by `angle` (rad)."""
    z = cell[axis] if isinstance(axis, (int, np.integer)) else np.asarray(axis)
    z = z / np.linalg.norm(z)
    side = cell[(axis + 1) % 3] if isinstance(axis, (int, np.integer)) else np.eye(3)[np.argmin(np.abs(z))]
    x = side - (side @ z) * z
    x /= np.linalg.norm(x)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.stack([x, np.cross(z, x), z])


def fill_box(
    cell: NDArray[np.float64], numbers: NDArray[np.integer], fractional: NDArray[np.float64], size: tuple[float, float, float],
    turn: NDArray[np.float64], shift: NDArray[np.float64], margin: float,
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Atoms of a turned crystal in a box.

    Parameters
    ----------
    cell, numbers, fractional
        Unit cell, rows a, b, c in Å.
    size : (z, y, x)
        Å.
    turn : ndarray
        (3, 3), acts on column vectors (x, y, z).
    shift : ndarray
        (3,), fractional.
    margin : float
        Å kept around the box laterally.

    Returns
    -------
    numbers (n,), positions (n, 3) as (z, y, x) in Å from the corner of the box.
    """
    rows = cell @ turn.T
    low = np.array([-margin, -margin, 0.0])
    high = np.array([size[2] + margin, size[1] + margin, size[0]])
    inverse = np.linalg.inv(rows)
    # the box is a sum of intervals, so its image in fractional coordinates has these bounds
    centre, half = (low + high) / 2 @ inverse, np.abs((high - low) / 2) @ np.abs(inverse)
    first, last = np.floor(centre - half - 1).astype(int), np.ceil(centre + half).astype(int)
    grid = np.indices(last - first + 1).reshape(3, -1).T + first
    offset = grid @ rows
    # cells that cannot touch the box go before their atoms are written out
    touches = (offset + rows.clip(min=0).sum(axis=0) >= low) & (offset + rows.clip(max=0).sum(axis=0) <= high)
    offset = offset[touches.all(axis=1)]
    base = ((fractional + shift) % 1.0) @ rows
    positions = (offset[:, None] + base[None]).reshape(-1, 3)
    inside = ((positions >= low) & (positions < high)).all(axis=1)
    return np.tile(numbers, len(offset))[inside], positions[inside][:, ::-1]


class CrystalStream:
    """Batches of phase volumes.

    Parameters
    ----------
    structures : Structures
    augmentation : Augmentation
    experimental_weight : float
        How much oftener a structure known from experiment is drawn than one that is only computed.
    seed : int
    """

    def __init__(self, structures: Structures, augmentation: Augmentation | None = None, *, experimental_weight: float = 4.0,
                 seed: int = 0) -> None:
        self.structures, self.augmentation, self.seed = structures, augmentation or Augmentation(), seed
        weight = np.where(structures.experimental, experimental_weight, 1.0)
        self._cumulative = np.cumsum(weight) / weight.sum()

    def choose(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Indices (count,) of structures, drawn as in training."""
        found = np.searchsorted(self._cumulative, rng.random(count))
        return found.clip(0, len(self.structures) - 1)

    def atoms(self, rng: np.random.Generator, size: tuple[float, float, float], margin: float,
              index: int | None = None, axis: int | None = None) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """One draw: atomic numbers (n,), positions (n, 3) as (z, y, x) in Å. A box without atoms is drawn again."""
        a = self.augmentation
        for _ in range(100):
            chosen = index if index is not None else int(self.choose(rng, 1)[0])
            cell, numbers, fractional = self.structures.cell(chosen)
            direction: int | NDArray[np.float64] = int(rng.integers(3)) if axis is None else axis
            if rng.random() < a.any_direction:
                direction = rng.normal(size=3)
            angle = rng.uniform(0, 2 * np.pi) if a.rotate else 0.0
            shift = rng.random(3) if a.shift else np.zeros(3)
            found, positions = fill_box(cell, numbers, fractional, size, turn_of(cell, direction, angle), shift, margin)
            if a.flip:
                for k in range(3):
                    if rng.random() < 0.5:
                        positions[:, k] = size[k] - positions[:, k]
            if a.vacancies:
                kept = rng.random(len(found)) >= a.vacancies
                found, positions = found[kept], positions[kept]
            if len(found):
                return found, positions
        raise ValueError("no box of this size holds an atom: it is smaller than the gaps of the crystals")

    def batch(self, step: int, count: int, shape: tuple[int, int, int] = (8, 64, 64), device: str = "cpu") -> Tensor:
        """Volumes (count, D, H, W) in rad; the same for the same seed and step."""
        from ..specimen.splat import MARGIN, render_batch

        rng = np.random.default_rng([self.seed, step])
        size = tuple(n * v for n, v in zip(shape, VOXEL_SIZE, strict=True))
        structures = [self.atoms(rng, size, MARGIN) for _ in range(count)]  # type: ignore[arg-type]
        return render_batch(structures, shape, VOXEL_SIZE, energy=ENERGY, device=device)

    def fixed(self, shape: tuple[int, int, int] = (8, 64, 64), axes: tuple[int, ...] = (0, 1, 2),
              limit: int | None = None) -> tuple[Tensor, list[tuple[NDArray[np.integer], NDArray[np.float64]]], list[str]]:
        """Every structure once per axis, always the same volumes: for validation and test.

        Returns
        -------
        volumes (n, D, H, W) in rad; their atoms; names like "mp-1 a".
        """
        from ..specimen.splat import MARGIN, render_batch

        size = tuple(n * v for n, v in zip(shape, VOXEL_SIZE, strict=True))
        structures, names = [], []
        for index, name in enumerate(self.structures.names):
            for axis in axes:
                rng = np.random.default_rng([self.seed, *name.encode(), axis])
                structures.append(self.atoms(rng, size, MARGIN, index=index, axis=axis))  # type: ignore[arg-type]
                names.append(f"{name} {'abc'[axis]}")
                if limit is not None and len(names) == limit:
                    return render_batch(structures, shape, VOXEL_SIZE, energy=ENERGY), structures, names
        return render_batch(structures, shape, VOXEL_SIZE, energy=ENERGY), structures, names
