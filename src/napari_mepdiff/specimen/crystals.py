"""Crystals for tests and benchmarks, built from numbers: a dopant, an interface, a 2D bilayer.

All are periodic cells with the beam along c, as CIF files give them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

SRTIO3 = 3.905
"""Lattice constant of SrTiO₃ at room temperature, Å."""


def srtio3() -> Atoms:
    """The cubic perovskite, one unit cell: Sr in the corner, Ti in the middle."""
    from ase import Atoms

    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=places, cell=[SRTIO3] * 3, pbc=True)


def doped_srtio3(
    cells: tuple[int, int, int] = (20, 10, 10), dopant: str = "La", depth: float = 30.0
) -> tuple[Atoms, tuple[float, float, float]]:
    """SrTiO₃ in which one Sr is another element, at a known depth.

    Parameters
    ----------
    cells : (z, y, x)
        Unit cells; the dopant repeats with them.
    dopant : str
        Element.
    depth : float
        Å below the entrance surface; the nearest Sr of the middle column is taken.

    Returns
    -------
    Atoms, (z, y, x)
        The supercell, and where the dopant is, Å.

    Raises
    ------
    ValueError
        If the depth is outside the supercell.
    """
    if not 0 <= depth < cells[0] * SRTIO3:
        raise ValueError(f"a depth of {depth:g} Å is outside {cells[0] * SRTIO3:g} Å of crystal")
    crystal = srtio3().repeat((cells[2], cells[1], cells[0]))
    place = np.array([cells[2] // 2 * SRTIO3, cells[1] // 2 * SRTIO3, depth])
    strontium = np.flatnonzero(crystal.numbers == 38)
    away = np.linalg.norm((crystal.positions[strontium] - place) * (1e3, 1e3, 1), axis=1)
    site = strontium[np.argmin(away)]
    crystal.symbols[site] = dopant
    x, y, z = (float(v) for v in crystal.positions[site])
    return crystal, (z, y, x)


def interface(first: Atoms, second: Atoms, cells: int = 5, across: int = 1) -> Atoms:
    """Two crystals side by side along x, seen edge on; the second is strained to fit the first.

    Parameters
    ----------
    first, second : Atoms
        Unit cells with right angles.
    cells : int
        Unit cells of each along x.
    across : int
        Repeats along y and z.

    Raises
    ------
    ValueError
        If a cell is not rectangular, or the second would be strained by more than a tenth.
    """
    for crystal in (first, second):
        if np.abs(crystal.cell.angles() - 90).max() > 1e-3:
            raise ValueError("an interface is made of crystals with right angles only")
    left, right = first.cell.lengths(), second.cell.lengths()
    strain = np.abs(left[1:] / right[1:] - 1).max()
    if strain > 0.1:
        raise ValueError(f"the second crystal would be strained by {strain:.0%}; choose another")
    fitted = second.copy()
    fitted.set_cell([right[0], left[1], left[2]], scale_atoms=True)
    out = first.copy()
    out.set_cell(left)
    out = out.repeat((cells, across, across))
    fitted = fitted.repeat((cells, across, across))
    fitted.positions[:, 0] += cells * left[0]
    out += fitted
    out.set_cell([cells * (left[0] + right[0]), left[1] * across, left[2] * across])
    out.pbc = True
    return out


def bilayer(metal: str = "Mo", chalcogen: str = "S", vacuum: float = 4.0) -> Atoms:
    """Two layers like MoS₂ (2H, a = 3.16 Å, layers 6.15 Å apart) in an orthogonal cell.

    Parameters
    ----------
    metal, chalcogen : str
        Elements.
    vacuum : float
        Å above and below.
    """
    from ase import Atoms

    a, apart, half = 3.16, 6.15, 1.565  # Å; half the distance of the two chalcogen planes
    row = a / np.sqrt(3)
    # (x, y) of the three sites of the hexagonal lattice in its orthogonal cell a × √3 a
    sites = [np.array([[0.0, k * row], [a / 2, (k + 1.5) * row]]) for k in range(2)]
    symbols, places = [], []
    for layer, (m, x) in enumerate(((0, 1), (1, 0))):
        z = vacuum + half + layer * apart
        for x0, y0 in sites[m]:
            symbols.append(metal)
            places.append((x0, y0, z))
        for x0, y0 in sites[x]:
            symbols += [chalcogen] * 2
            places += [(x0, y0, z - half), (x0, y0, z + half)]
    height = apart + 2 * (half + vacuum)
    crystal = Atoms(symbols, positions=places, cell=[a, 3 * row, height], pbc=True)
    crystal.wrap()
    return crystal
