"""Atoms in a box, as plain arrays: what crystals are cut into and volumes are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .volume import Volume

if TYPE_CHECKING:
    from ase import Atoms

Structure = tuple[NDArray[np.integer], NDArray[np.floating]]
"""Atomic numbers (n,) and positions (n, 3) as (z, y, x) in Å from the corner of the box."""


def structure_of(atoms: Atoms) -> Structure:
    """ASE atoms in a box as atomic numbers and positions (z, y, x) in Å."""
    return atoms.numbers, atoms.positions[:, ::-1].copy()


def atoms_in(atoms: Atoms, volume: Volume) -> dict[str, NDArray[np.generic]]:
    """Atoms whose nucleus lies in the volume.

    Returns
    -------
    dict
        ``numbers`` (n,) and ``positions`` (n, 3) as (z, y, x) in Å from the corner of the volume.
    """
    zyx = atoms.positions[:, ::-1]
    origin = np.array(volume.origin)
    low = origin - [0, volume.voxel_size[1] / 2, volume.voxel_size[2] / 2]
    inside = ((zyx >= low) & (zyx < low + np.array(volume.extent))).all(axis=1)
    return {"numbers": atoms.numbers[inside], "positions": zyx[inside] - origin}
