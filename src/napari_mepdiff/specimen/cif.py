"""One crystal from a CIF file, or from anything else that ASE reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def load_crystal(source: str | Path | Atoms) -> Atoms:
    """A unit cell from a CIF file (or any file that ASE reads) or from ASE atoms.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it holds no crystal: unreadable, no atoms, no cell, or sites that are partly occupied.
    """
    from ase import Atoms
    from ase.io import read

    atoms: Atoms | list[Atoms]
    if isinstance(source, Atoms):
        atoms, name = source, source.get_chemical_formula()
    else:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        try:
            atoms = read(path)
        except Exception as error:  # ASE's parsers raise anything
            raise ValueError(
                f"{path.name} cannot be read as a crystal structure: {error}"
            ) from error
        name = path.name
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise ValueError(f"{name} holds no atoms")
    if atoms.cell.rank < 3 or abs(atoms.cell.volume) < 1e-3:
        raise ValueError(f"{name} has no three-dimensional unit cell")
    occupancy = atoms.info.get("occupancy") or {}
    if any(abs(sum(site.values()) - 1) > 1e-3 or len(site) > 1 for site in occupancy.values()):
        raise ValueError(f"{name} has partly occupied or mixed sites; order it first")
    if not np.isfinite(atoms.positions).all():
        raise ValueError(f"{name} has atoms without a position")
    crystal: Atoms = atoms.copy()
    crystal.pbc = True
    return crystal
