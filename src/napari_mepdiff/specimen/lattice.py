"""Crystals turned, filled into a box and cut: the one geometry of specimens.

The beam runs along +z. Boxes and their atoms are (z, y, x) in Å like volumes; unit cells have rows
a, b, c as (x, y, z), and ASE's atoms are (x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]
ZoneAxis = str | Sequence[float]

_AXES: dict[str, tuple[float, float, float]] = {"a": (1, 0, 0), "b": (0, 1, 0), "c": (0, 0, 1)}
_FACE = 1e-6  # Å; an atom on a face of the box is counted once, at its beginning


# ---- turning ------------------------------------------------------------------------------------
def turn(direction: Array, side: Array, angle: float = 0.0) -> Array:
    """Rotation (3, 3) that brings a direction onto +z, and then turns in the plane.

    Parameters
    ----------
    direction : ndarray
        (x, y, z), of any length.
    side : ndarray
        (x, y, z), not along `direction`: comes to lie in the x-z plane before the turn in the
        plane.
    angle : float
        rad, from +x towards +y.

    Returns
    -------
    ndarray
        Acts on column vectors (x, y, z).
    """
    z = direction / np.linalg.norm(direction)
    x = side - (side @ z) * z
    x /= np.linalg.norm(x)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.stack([x, np.cross(z, x), z])


def orientation(cell: Array, zone_axis: ZoneAxis, angle: float = 0.0) -> Array:
    """Rotation (3, 3) that turns a zone axis onto +z, and then by `angle` in the plane.

    Parameters
    ----------
    cell : ndarray
        (3, 3), rows a, b, c in Å.
    zone_axis : 'a', 'b', 'c' or (u, v, w)
        Lattice direction along the beam. The next lattice vector (of a, b, c in turn) lies in the
        x-z plane.
    angle : float
        Further rotation in the plane, rad, from +x towards +y.

    Returns
    -------
    ndarray
        Acts on column vectors (x, y, z).

    Raises
    ------
    ValueError
        If the zone axis is unknown or zero.
    """
    if isinstance(zone_axis, str):
        if zone_axis not in _AXES:
            raise ValueError(f"the zone axis is 'a', 'b', 'c' or three indices, got {zone_axis!r}")
        indices: Sequence[float] = _AXES[zone_axis]
    else:
        indices = zone_axis
    uvw = np.asarray(indices, dtype=float)
    if uvw.shape != (3,) or not np.isfinite(uvw).all() or not uvw.any():
        raise ValueError(
            f"the zone axis needs three indices that are not all zero, got {zone_axis!r}"
        )
    direction = uvw @ cell
    z = direction / np.linalg.norm(direction)
    start = int(np.argmax(np.abs(uvw))) + 1
    sides = (cell[(start + k) % 3] for k in range(3))
    along = 1e-3  # a lattice vector that lies along the beam fixes no turn about it
    side = next(s for s in sides if np.linalg.norm(s - (s @ z) * z) > along * np.linalg.norm(s))
    return turn(direction, side, angle)


def any_orientation(direction: Array, angle: float = 0.0) -> Array:
    """Rotation (3, 3) that brings any direction (x, y, z) onto +z, and then turns by `angle` (rad)
    in the plane.

    The Cartesian axis that is farthest from the direction comes to lie in the x-z plane before that
    turn.
    """
    farthest = np.argmin(np.abs(direction / np.linalg.norm(direction)))
    return turn(direction, np.eye(3)[farthest], angle)


# ---- filling ------------------------------------------------------------------------------------
def _repeat(cell: Array, base: Array, low: Array, high: Array) -> tuple[NDArray[np.intp], Array]:
    """Every lattice translation of `base` (n, 3) that lies in the box [low, high), all as (x, y, z)
    in Å.

    Returns
    -------
    index (m,) into `base`, positions (m, 3); cell by cell.
    """
    below, above = low - base.max(axis=0) - _FACE, high - base.min(axis=0) + _FACE
    inverse = np.linalg.inv(cell)
    # a box is a sum of intervals, so its image in fractional coordinates has these bounds
    centre, half = (below + above) / 2 @ inverse, np.abs((above - below) / 2) @ np.abs(inverse)
    first, last = np.floor(centre - half).astype(int), np.ceil(centre + half).astype(int)
    offset = (np.indices(last - first + 1).reshape(3, -1).T + first) @ cell
    # cells that cannot touch the box go before their atoms are written out
    offset = offset[((offset >= below) & (offset <= above)).all(axis=1)]
    positions = (offset[:, None] + base[None]).reshape(-1, 3)
    inside = ((positions >= low) & (positions < high)).all(axis=1)
    return np.tile(np.arange(len(base)), len(offset))[inside], positions[inside]


def _bounds(size: tuple[float, float, float], margin: float) -> tuple[Array, Array]:
    """Corners (x, y, z) of a box (z, y, x) with a lateral margin."""
    return (
        np.array([-margin, -margin, 0.0]),
        np.array([size[2] + margin, size[1] + margin, size[0]]),
    )


def fill_box(
    cell: Array,
    numbers: NDArray[np.integer],
    fractional: Array,
    size: tuple[float, float, float],
    turned: Array,
    shift: Array,
    margin: float,
) -> tuple[NDArray[np.integer], Array]:
    """Atoms of a turned crystal in a box; plain arrays, fast enough for every step of training.

    Parameters
    ----------
    cell, numbers, fractional
        Unit cell: (3, 3), rows a, b, c in Å; (n,); (n, 3).
    size : (z, y, x)
        Å.
    turned : ndarray
        (3, 3), see :func:`orientation`.
    shift : ndarray
        (3,), fractional.
    margin : float
        Å kept around the box laterally.

    Returns
    -------
    numbers (m,), positions (m, 3) as (z, y, x) in Å from the corner of the box.
    """
    rows = cell @ turned.T
    index, positions = _repeat(rows, ((fractional + shift) % 1.0) @ rows, *_bounds(size, margin))
    return numbers[index], positions[:, ::-1]


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
    zone_axis
        See :func:`orientation`.
    rotation : float
        In-plane rotation in degrees, from +x towards +y.
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
        Positions (x, y, z) in Å from the corner of the box, whose cell is the box; atoms of the
        margin have coordinates outside it.

    Raises
    ------
    ValueError
        If the box is empty or would hold more than `max_atoms`.
    """
    from ase import Atoms

    if min(size) <= 0 or not 0 <= vacancies < 1 or margin < 0:
        raise ValueError(f"impossible box: size {size} Å, margin {margin} Å, vacancies {vacancies}")
    cell = crystal.cell.array @ orientation(crystal.cell.array, zone_axis, np.radians(rotation)).T
    low, high = _bounds(size, margin)
    expected = len(crystal) * np.prod(high - low) / abs(np.linalg.det(cell))
    if expected > max_atoms:
        raise ValueError(f"the box would hold about {expected:.1e} atoms; make it smaller")
    base = crystal.get_scaled_positions(wrap=True) @ cell + np.array(shift)[::-1]
    # half-open, with a hair of tolerance so that an atom on a face is taken once
    index, positions = _repeat(cell, base, low - _FACE, high - _FACE)
    by_site = np.argsort(
        index, kind="stable"
    )  # the order in which vacancies have always been drawn
    index, positions = index[by_site], positions[by_site]
    if vacancies:
        keep = np.random.default_rng(seed).random(len(index)) >= vacancies
        index, positions = index[keep], positions[keep]
    if len(index) == 0:
        raise ValueError("the box holds no atoms: it is smaller than the gaps of this crystal")
    order = np.lexsort((positions[:, 0], positions[:, 1], positions[:, 2]))
    box = Atoms(
        crystal.numbers[index[order]],
        positions=np.maximum(positions[order], [-np.inf, -np.inf, 0.0]),
        pbc=True,
        cell=[size[2], size[1], size[0]],
    )
    box.info.update(crystal.info)
    return box
