"""Oriented atoms to phase volumes, x = σ_e·V in rad (paper, appendix A): by abTEM, or fast.

The fast renderer makes many structures at once, on CPU cores or a GPU: the potential of abTEM's
infinite projection (Lobato), without abTEM in the loop. Every atom is shared bilinearly among the
four pixels around it, and each element's atoms are convolved with its projected potential. In
Fourier space the four shares of an atom are an outer product of two phase vectors, so all atoms of
one element in one slice are one small matrix product.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import abtem
from .atoms import Structure, structure_of
from .kernels import MARGIN, atom_kernel
from .volume import Volume

if TYPE_CHECKING:
    from ase import Atoms

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
        Positions (x, y, z) in Å from the corner of the box; atoms up to `margin` outside it
        laterally may be among them, see :func:`~napari_mepdiff.specimen.lattice.cut_box`.
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
        raise ValueError(
            f"atoms lie between z = {z.min():.2f} and {z.max():.2f} Å, "
            f"the box ends at {depth * dz} Å"
        )
    if engine not in ("abtem", "fourier"):
        raise ValueError(f"engine is 'abtem' or 'fourier', got {engine!r}")
    if engine == "fourier":
        if (parametrization, projection) != ("lobato", "infinite"):
            raise ValueError(
                "the fast renderer knows Lobato's potentials in infinite projection only: "
                "use engine='abtem'"
            )
        phase = render_batch(
            [structure_of(atoms)], shape, voxel_size, energy=energy, margin=margin
        )[0].numpy()
    else:
        phase = abtem.projected_phase(
            atoms, shape, voxel_size, energy, parametrization, projection, margin
        )
    return Volume(
        phase,
        voxel_size,
        energy=energy,
        provenance={
            "made_by": "abtem.Potential" if engine == "abtem" else "napari_mepdiff.specimen.render",
            "parametrization": parametrization,
            "projection": projection,
            "formula": atoms.get_chemical_formula(),
            "atoms_sha256": hashlib.sha256(
                atoms.numbers.tobytes() + atoms.positions.tobytes()
            ).hexdigest(),
            **{k: str(v) for k, v in atoms.info.items() if k in ("id", "spacegroup")},
        },
    )


def render_batch(
    structures: Sequence[Structure],
    shape: tuple[int, int, int] = (8, 64, 64),
    voxel_size: tuple[float, float, float] = (1.6, 0.2, 0.2),
    *,
    energy: float = 300.0,
    margin: float = MARGIN,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Phase volumes of several structures (paper, appendix A).

    Parameters
    ----------
    structures : sequence of (numbers, positions)
        Atomic numbers (n,) and positions (n, 3) as (z, y, x) in Å from the corner of the box. Atoms
        outside the box by up to `margin` laterally reach in; atoms above, below and further out are
        left out.
    shape : (D, H, W)
        Voxels.
    voxel_size : (dz, dy, dx)
        Å.
    energy : float
        kV, for σ_e.
    margin : float
        Å rendered around the box and cropped again, so that nothing wraps around.
    device : str or torch.device
        Where to render.

    Returns
    -------
    Tensor
        (B, D, H, W) in rad, on the device.
    """
    depth, height, width = shape
    dz, dy, dx = voxel_size
    pad_y, pad_x = int(np.ceil(margin / dy)), int(np.ceil(margin / dx))
    wide = (height + 2 * pad_y, width + 2 * pad_x)
    keys, where = [], []
    for index, (numbers, positions) in enumerate(structures):
        slices = np.floor(positions[:, 0] / dz).astype(np.int64)
        rows, columns = positions[:, 1] / dy + pad_y, positions[:, 2] / dx + pad_x
        inside = (
            (slices >= 0)
            & (slices < depth)
            & (rows >= 0)
            & (rows < wide[0])
            & (columns >= 0)
            & (columns < wide[1])
        )
        keys.append(((index * depth + slices[inside]) << 8) + np.asarray(numbers)[inside])
        where.append(np.stack([rows[inside], columns[inside]]))
    key, place = np.concatenate(keys), np.concatenate(where, axis=1)
    out = torch.zeros(
        len(structures) * depth, wide[0], wide[1] // 2 + 1, dtype=torch.complex64, device=device
    )
    if len(key):
        order = np.argsort(key, kind="stable")
        groups, start, count = np.unique(key[order], return_index=True, return_counts=True)
        slot = np.arange(len(key)) - np.repeat(start, count)
        _splat(
            out,
            groups,
            count,
            np.repeat(np.arange(len(groups)), count),
            slot,
            place[:, order],
            wide,
            (dy, dx),
            energy,
        )
    volume = torch.fft.irfft2(out, s=wide)[:, pad_y : pad_y + height, pad_x : pad_x + width]
    return volume.reshape(len(structures), depth, height, width).contiguous()


def _splat(
    out: Tensor,
    groups: NDArray[Any],
    count: NDArray[Any],
    member: NDArray[Any],
    slot: NDArray[Any],
    place: NDArray[Any],
    wide: tuple[int, int],
    pixel_size: tuple[float, float],
    energy: float,
) -> None:
    """Add the spectra of all groups (one slice, one element) to the slices in `out`."""
    device = out.device
    elements, which = np.unique(groups & 255, return_inverse=True)
    kernels = torch.stack([atom_kernel(int(n), wide, pixel_size, energy) for n in elements]).to(
        device
    )
    # groups of like size together: little padding, and pieces that stay in the cache
    by_size = np.argsort(count, kind="stable")
    piece = 64 if device.type == "cpu" else 4096
    first = np.concatenate([[0], np.cumsum(count)])
    coordinates = torch.from_numpy(place).to(device, torch.float32)
    for low in range(0, len(groups), piece):
        chosen = by_size[low : low + piece]
        most = int(count[chosen].max())
        index = first[chosen][:, None] + np.arange(most)[None]
        valid = torch.from_numpy(np.arange(most)[None] < count[chosen][:, None]).to(device)
        at = torch.from_numpy(np.minimum(index, place.shape[1] - 1)).to(device)
        y = _shares(coordinates[0][at], wide[0], full=True) * valid[..., None]
        x = _shares(coordinates[1][at], wide[1], full=False)
        spectrum = (
            torch.bmm(y.transpose(1, 2), x) * kernels[torch.from_numpy(which[chosen]).to(device)]
        )
        out.index_add_(0, torch.from_numpy(groups[chosen] >> 8).to(device), spectrum)


def _shares(coordinate: Tensor, length: int, full: bool) -> Tensor:
    """Transform of an atom's two shares along one axis: (1 − f) e^(−2πikn) + f e^(−2πik(n+1)); (g,
    n, k)."""
    whole = coordinate.floor()
    fraction = (coordinate - whole)[..., None]
    turn = _turns(length, coordinate.device)  # all phases are powers of one root of unity
    k = torch.arange(length if full else length // 2 + 1, device=coordinate.device)
    here = (whole.long()[..., None] * k) % length
    return turn[here] * (1 - fraction + fraction * turn[k])


@lru_cache(maxsize=32)
def _turns(length: int, device: torch.device) -> Tensor:
    angle = -2 * np.pi * np.arange(length) / length
    return torch.from_numpy(np.exp(1j * angle).astype(np.complex64)).to(device)
