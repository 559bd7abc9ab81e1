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
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..base.devices import to_device
from . import abtem
from .atoms import Structure, structure_of
from .kernels import MARGIN, atom_kernel
from .packing import Packed, pack
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
    return render_packed(pack(structures, shape, voxel_size, margin), energy=energy, device=device)


def render_packed(
    packed: Packed, *, energy: float = 300.0, device: str | torch.device = "cpu"
) -> Tensor:
    """Phase volumes of boxes whose atoms were sorted by :func:`~.packing.pack`.

    On a GPU nothing waits for it: the work is queued.

    Parameters
    ----------
    packed : Packed
    energy : float
        kV, for σ_e.
    device : str or torch.device
        Where to render.

    Returns
    -------
    Tensor
        (B, D, H, W) in rad, on the device.
    """
    device = torch.device(device)
    depth, height, width = packed.shape
    pad_y, pad_x = packed.pad
    wide = (height + 2 * pad_y, width + 2 * pad_x)
    out = torch.zeros(
        packed.boxes * depth, wide[0], wide[1] // 2 + 1, dtype=torch.complex64, device=device
    )
    if len(packed.count):
        _splat(out, packed, wide, energy)
    volume = torch.fft.irfft2(out, s=wide)[:, pad_y : pad_y + height, pad_x : pad_x + width]
    return volume.reshape(packed.boxes, depth, height, width).contiguous()


def _splat(out: Tensor, packed: Packed, wide: tuple[int, int], energy: float) -> None:
    """Add the spectra of all groups (one slice, one element) to the slices in `out`."""
    device = out.device
    pixel_size = packed.voxel_size[1:]
    elements, which = np.unique(packed.number, return_inverse=True)
    kernels = torch.stack([_kernel(int(n), wide, pixel_size, energy, device) for n in elements])
    coordinates = to_device(packed.place, device)
    kind, target = to_device(which, device), to_device(packed.target, device)
    first, count = to_device(packed.first, device), to_device(packed.count, device)
    # on a processor pieces that stay in the cache, on a GPU few and of like size
    cpu = device.type == "cpu"
    for low, end in packed.pieces(64) if cpu else packed.pieces(4096, 2.0):
        member = torch.arange(int(packed.count[end - 1]), device=device)
        part = slice(low, end)
        valid = member < count[part, None]
        at = (first[part, None] + member).clamp_max(packed.place.shape[1] - 1)
        y = _shares(coordinates[0][at], wide[0], full=True) * valid[..., None]
        x = _shares(coordinates[1][at], wide[1], full=False)
        spectrum = torch.bmm(y.transpose(1, 2), x) * kernels[kind[part]]
        out.index_add_(0, target[part], spectrum)


@lru_cache(maxsize=512)
def _kernel(
    number: int,
    wide: tuple[int, int],
    pixel_size: tuple[float, float],
    energy: float,
    device: torch.device,
) -> Tensor:
    return atom_kernel(number, wide, pixel_size, energy).to(device)


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
