"""The reference: projected potentials by abTEM (Madsen and Susi 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..base.extras import require
from ..physics.optics import interaction_parameter

if TYPE_CHECKING:
    from ase import Atoms


def projected_phase(
    atoms: Atoms,
    shape: tuple[int, int, int],
    voxel_size: tuple[float, float, float],
    energy: float,
    parametrization: str,
    projection: str,
    margin: float,
) -> NDArray[np.float32]:
    """Phase (D, H, W) in rad of atoms in a box; arguments as of :func:`~.render.render`.

    Raises
    ------
    MissingExtra
        If abTEM is not installed.
    ValueError
        If abTEM cuts the box into another number of slices.
    """
    abtem = require("abtem", "simulate", "Rendering crystals by abTEM")
    depth, height, width = shape
    dz, dy, dx = voxel_size
    pad_y, pad_x = int(np.ceil(margin / dy)), int(np.ceil(margin / dx))
    wide = atoms.copy()
    wide.set_cell([(width + 2 * pad_x) * dx, (height + 2 * pad_y) * dy, depth * dz])
    wide.positions[:, :2] += (pad_x * dx, pad_y * dy)
    wide.pbc = True
    potential = abtem.Potential(
        wide,
        gpts=(width + 2 * pad_x, height + 2 * pad_y),
        slice_thickness=(dz,) * depth,  # of a number abTEM makes 8 slices of 7.000000000000001
        parametrization=parametrization,
        projection=projection,
    )
    with abtem.config.set({"diagnostics.progress_bar": False}):
        projected = potential.build(lazy=False).array  # (D, x, y), V·Å
    if projected.shape[0] != depth:
        raise ValueError(
            f"abTEM made {projected.shape[0]} slices of {dz} Å where {depth} were asked for"
        )
    inner = projected[:, pad_x : pad_x + width, pad_y : pad_y + height].transpose(0, 2, 1)
    return (interaction_parameter(energy) * inner).astype(np.float32)
