"""Crystals from CIF files, ASE atoms or a table of structures, cut into an oriented box of atoms.

The beam runs along +z. Boxes are (z, y, x) in Å like volumes; ASE's atoms inside are (x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

ZoneAxis = str | Sequence[float]
_AXES = {"a": (1, 0, 0), "b": (0, 1, 0), "c": (0, 0, 1)}


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

    atoms: Any
    if isinstance(source, Atoms):
        atoms, name = source, source.get_chemical_formula()
    else:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        try:
            atoms = read(path)
        except Exception as error:  # ASE's parsers raise anything
            raise ValueError(f"{path.name} cannot be read as a crystal structure: {error}") from error
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
    atoms = atoms.copy()
    atoms.pbc = True
    return atoms


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> Any:
    """The table of structures as a pyarrow table (see its README for the columns).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file or it lacks the columns of a structures table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        table = pq.read_table(path, columns=list(columns) if columns else None)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a table of structures: {error}") from error
    if columns is None and (missing := {"id", "lattice", "numbers", "frac_u16"} - set(table.column_names)):
        raise ValueError(f"{path.name} lacks the columns {sorted(missing)}")
    return table


def from_row(row: dict[str, Any]) -> Atoms:
    """Unit cell from one row of the table: lattice (9 floats, Å), numbers (Z), frac_u16 (fractional × 65536).

    Raises
    ------
    ValueError
        If the row is corrupt.
    """
    from ase import Atoms

    lattice = np.asarray(row["lattice"], dtype=float)
    numbers = np.asarray(row["numbers"], dtype=int)
    fractional = np.asarray(row["frac_u16"], dtype=float)
    if lattice.size != 9 or fractional.size != 3 * numbers.size or numbers.size == 0:
        raise ValueError(f"structure {row.get('id')}: lattice, numbers and positions do not fit together")
    if not ((numbers >= 1) & (numbers <= 118)).all() or abs(np.linalg.det(lattice.reshape(3, 3))) < 1e-3:
        raise ValueError(f"structure {row.get('id')}: impossible elements or lattice")
    atoms = Atoms(numbers, cell=lattice.reshape(3, 3), pbc=True,
                  scaled_positions=fractional.reshape(-1, 3) / 65536)
    atoms.info["id"] = row.get("id")
    return atoms


def from_table(path: str | Path, identifier: str) -> Atoms:
    """One structure of the table by its id.

    Raises
    ------
    KeyError
        If there is no structure of that id.
    """
    import pyarrow.compute as pc

    table = read_table(path)
    rows = table.filter(pc.equal(table["id"], identifier)).to_pylist()
    if not rows:
        raise KeyError(f"no structure {identifier!r} in {Path(path).name}")
    return from_row(rows[0])


def orientation(cell: NDArray[np.float64], zone_axis: ZoneAxis, rotation: float = 0.0) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) that turns the zone axis onto +z (acts on column vectors x, y, z).

    Parameters
    ----------
    cell : ndarray
        (3, 3), rows a, b, c in Å.
    zone_axis : 'a', 'b', 'c' or (u, v, w)
        Lattice direction along the beam. The next lattice vector (of a, b, c in turn) lies in the x-z plane.
    rotation : float
        Further in-plane rotation in degrees, from +x towards +y.

    Raises
    ------
    ValueError
        If the zone axis is unknown or zero.
    """
    if isinstance(zone_axis, str):
        if zone_axis not in _AXES:
            raise ValueError(f"the zone axis is 'a', 'b', 'c' or three indices, got {zone_axis!r}")
        indices: Any = _AXES[zone_axis]
    else:
        indices = zone_axis
    uvw = np.asarray(indices, dtype=float)
    if uvw.shape != (3,) or not np.isfinite(uvw).all() or not uvw.any():
        raise ValueError(f"the zone axis needs three indices that are not all zero, got {zone_axis!r}")
    z = uvw @ cell
    z = z / np.linalg.norm(z)
    start = int(np.argmax(np.abs(uvw))) + 1
    for k in range(3):
        side = cell[(start + k) % 3]
        x = side - (side @ z) * z
        if np.linalg.norm(x) > 1e-3 * np.linalg.norm(side):
            break
    x = x / np.linalg.norm(x)
    turn = np.stack([x, np.cross(z, x), z])
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn


def cut_box(
    crystal: Atoms,
    size: tuple[float, float, float] = (12.8, 12.8, 12.8),
    *,
    zone_axis: ZoneAxis = "c",
    rotation: float = 0.0,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    margin: float = 0.0,
    vacancies: float = 0.0,
    seed: int = 0,
    max_atoms: int = 2_000_000,
) -> Atoms:
    """Atoms of an oriented crystal in a box, beam along z.

    Parameters
    ----------
    crystal : Atoms
        Unit cell.
    size : (z, y, x)
        Box in Å.
    zone_axis, rotation
        See :func:`orientation`.
    shift : (z, y, x)
        Å; moves the crystal against the box.
    margin : float
        Å; atoms this far outside the box laterally are kept as well (their potential reaches in).
    vacancies : float
        Fraction of atoms removed at random (the paper: 0.01).
    seed : int
        Of the vacancies.

    Returns
    -------
    Atoms
        Positions (x, y, z) in Å from the corner of the box, whose cell is the box; atoms of the margin have
        coordinates outside it.

    Raises
    ------
    ValueError
        If the box is empty or would hold more than `max_atoms`.
    """
    from ase import Atoms

    if min(size) <= 0 or not 0 <= vacancies < 1 or margin < 0:
        raise ValueError(f"impossible box: size {size} Å, margin {margin} Å, vacancies {vacancies}")
    turn = orientation(crystal.cell.array, zone_axis, rotation)
    cell = crystal.cell.array @ turn.T
    low = np.array([-margin, -margin, 0.0])
    high = np.array([size[2] + margin, size[1] + margin, size[0]])
    expected = len(crystal) * np.prod(high - low) / abs(np.linalg.det(cell))
    if expected > max_atoms:
        raise ValueError(f"the box would hold about {expected:.1e} atoms; make it smaller")
    base = crystal.get_scaled_positions(wrap=True) @ cell + np.array(shift)[::-1]
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    steps = (corners - np.array(shift)[::-1]) @ np.linalg.inv(cell)
    first, last = np.floor(steps.min(axis=0)).astype(int) - 1, np.ceil(steps.max(axis=0)).astype(int) + 1
    grid = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first, last, strict=True)), indexing="ij"), -1)
    offsets = grid.reshape(-1, 3) @ cell
    positions, numbers = [], []
    for number, site in zip(crystal.numbers, base, strict=True):
        here = site + offsets
        # half-open, with a hair of tolerance so that an atom on a face is taken once
        inside = ((here >= low - 1e-6) & (here < high - 1e-6)).all(axis=1)
        positions.append(here[inside])
        numbers.append(np.full(inside.sum(), number))
    pos, num = np.concatenate(positions), np.concatenate(numbers)
    if vacancies:
        keep = np.random.default_rng(seed).random(len(num)) >= vacancies
        pos, num = pos[keep], num[keep]
    if len(num) == 0:
        raise ValueError("the box holds no atoms: it is smaller than the gaps of this crystal")
    order = np.lexsort((pos[:, 0], pos[:, 1], pos[:, 2]))
    box = Atoms(num[order], positions=np.maximum(pos[order], [-np.inf, -np.inf, 0.0]), pbc=True,
                cell=[size[2], size[1], size[0]])
    box.info.update(crystal.info)
    return box
