"""Oriented atoms to phase volumes, x = σ_e·V in rad, by abTEM (Madsen and Susi 2021) or by the fast renderer in ``splat``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .volume import Volume

if TYPE_CHECKING:
    from ase import Atoms

MARGIN = 4.0  # Å; beyond it a Lobato potential is below 1e-3 of its neighbourhood
Engine = Literal["abtem", "fourier"]


def render(
    atoms: Atoms,
    shape: tuple[int, int, int] = (8, 64, 64),
    voxel_size: tuple[float, float, float] = (1.6, 0.2, 0.2),
    *,
    energy: float = 300.0,
    parametrization: str = "lobato",
    projection: str = "infinite",
    margin: float = MARGIN,
    engine: Engine = "abtem",
) -> Volume:
    """Phase volume of the atoms in a box (paper, appendix A).

    Parameters
    ----------
    atoms : Atoms
        Positions (x, y, z) in Å from the corner of the box; atoms up to `margin` outside it laterally may be
        among them, see :func:`~napari_mepdiff.specimen.crystal.cut_box`.
    shape : (D, H, W)
        Voxels.
    voxel_size : (dz, dy, dx)
        Å.
    energy : float
        kV, for σ_e.
    projection : 'infinite' or 'finite'
        Infinite: each atom belongs to the one slice that holds its nucleus.
    margin : float
        Å rendered around the box and cropped again, so that nothing wraps around.
    engine : 'abtem' or 'fourier'
        'fourier': much faster and equal within 1e-4 (Lobato and infinite projection only).

    Returns
    -------
    Volume
        In rad.

    Raises
    ------
    ValueError
        If an atom lies above or below the box, or the engine is unknown or cannot do what is asked.
    """
    depth, dz = shape[0], voxel_size[0]
    z = atoms.positions[:, 2]
    if len(atoms) and (z.min() < 0 or z.max() >= depth * dz):
        raise ValueError(f"atoms lie between z = {z.min():.2f} and {z.max():.2f} Å, the box ends at {depth * dz} Å")
    if engine not in ("abtem", "fourier"):
        raise ValueError(f"engine is 'abtem' or 'fourier', got {engine!r}")
    if engine == "fourier":
        if (parametrization, projection) != ("lobato", "infinite"):
            raise ValueError("the fast renderer knows Lobato's potentials in infinite projection only: use engine='abtem'")
        from .splat import render_batch, structure_of

        phase = render_batch([structure_of(atoms)], shape, voxel_size, energy=energy, margin=margin)[0].numpy()
    else:
        phase = _by_abtem(atoms, shape, voxel_size, energy, parametrization, projection, margin)
    return Volume(
        phase,
        voxel_size,
        energy=energy,
        provenance={
            "made_by": "abtem.Potential" if engine == "abtem" else "napari_mepdiff.specimen.splat",
            "parametrization": parametrization,
            "projection": projection,
            "formula": atoms.get_chemical_formula(),
            "atoms_sha256": hashlib.sha256(atoms.numbers.tobytes() + atoms.positions.tobytes()).hexdigest(),
            **{k: str(v) for k, v in atoms.info.items() if k in ("id", "spacegroup")},
        },
    )


def _by_abtem(atoms: Atoms, shape: tuple[int, int, int], voxel_size: tuple[float, float, float], energy: float,
              parametrization: str, projection: str, margin: float) -> NDArray[np.float32]:
    import abtem

    from ..physics.optics import interaction_parameter

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
        slice_thickness=dz,
        parametrization=parametrization,
        projection=projection,
    )
    with abtem.config.set({"diagnostics.progress_bar": False}):
        projected = potential.build(lazy=False).array  # (D, x, y), V·Å
    if projected.shape[0] != depth:
        raise ValueError(f"abTEM made {projected.shape[0]} slices of {dz} Å where {depth} were asked for")
    inner = projected[:, pad_x : pad_x + width, pad_y : pad_y + height].transpose(0, 2, 1)
    return (interaction_parameter(energy) * inner).astype(np.float32)


def atoms_in(atoms: Atoms, volume: Volume) -> dict[str, NDArray[Any]]:
    """Atoms whose nucleus lies in the volume: ``numbers`` (n,) and ``positions`` (n, 3) as (z, y, x) in Å."""
    zyx = atoms.positions[:, ::-1]
    low = np.array(volume.origin) - [0, volume.voxel_size[1] / 2, volume.voxel_size[2] / 2]
    inside = ((zyx >= low) & (zyx < low + np.array(volume.extent))).all(axis=1)
    return {"numbers": atoms.numbers[inside], "positions": zyx[inside] - np.array(volume.origin)}
