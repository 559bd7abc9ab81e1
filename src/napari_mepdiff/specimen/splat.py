"""Fast renderer: atoms to phase volumes by Fourier splats, many structures at once, on CPU cores or a GPU.

The potential of abTEM's infinite projection (Lobato), without abTEM in the loop: every atom is shared bilinearly among the four
pixels around it, and each element's atoms are convolved with its projected potential. In Fourier space the four shares of an atom
are an outer product of two phase vectors, so all atoms of one element in one slice are one small matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .potential import MARGIN

if TYPE_CHECKING:
    from ase import Atoms

Structure = tuple[NDArray[np.integer], NDArray[np.floating]]


@lru_cache(maxsize=512)
def atom_kernel(number: int, shape: tuple[int, int], pixel_size: tuple[float, float], energy: float) -> Tensor:
    """Half spectrum (h, w // 2 + 1) of one atom's phase in rad: σ_e f(k) / (dy dx), f of Lobato and Van Dyck (2014).

    abTEM divides by sin(r)/r with r² = (k_y dy)² + (k_x dx)² (no π), to make up for atoms that are shared among the
    pixels around them; so do we, since its volumes are the truth here.
    """
    from abtem.parametrizations import LobatoParametrization
    from ase.data import chemical_symbols

    from ..physics.optics import interaction_parameter

    (height, width), (dy, dx) = shape, pixel_size
    ky = np.fft.fftfreq(height, dy)[:, None]
    kx = np.fft.rfftfreq(width, dx)[None]
    factor: Any = LobatoParametrization().projected_scattering_factor(chemical_symbols[number])
    r = np.hypot(ky * dy, kx * dx)
    shared = np.sinc(r / np.pi)  # numpy's sinc has the π
    spectrum = np.asarray(factor(ky**2 + kx**2)) / shared
    return torch.from_numpy((interaction_parameter(energy) / (dy * dx) * spectrum).astype(np.float32))


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
        Atomic numbers (n,) and positions (n, 3) as (z, y, x) in Å from the corner of the box. Atoms outside the box by up to
        `margin` laterally reach in; atoms above, below and further out are left out.
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
        inside = (slices >= 0) & (slices < depth) & (rows >= 0) & (rows < wide[0]) & (columns >= 0) & (columns < wide[1])
        keys.append(((index * depth + slices[inside]) << 8) + np.asarray(numbers)[inside])
        where.append(np.stack([rows[inside], columns[inside]]))
    key, place = np.concatenate(keys), np.concatenate(where, axis=1)
    out = torch.zeros(len(structures) * depth, wide[0], wide[1] // 2 + 1, dtype=torch.complex64, device=device)
    if len(key):
        order = np.argsort(key, kind="stable")
        groups, start, count = np.unique(key[order], return_index=True, return_counts=True)
        slot = np.arange(len(key)) - np.repeat(start, count)
        _splat(out, groups, count, np.repeat(np.arange(len(groups)), count), slot, place[:, order], wide, (dy, dx), energy)
    volume = torch.fft.irfft2(out, s=wide)[:, pad_y : pad_y + height, pad_x : pad_x + width]
    return volume.reshape(len(structures), depth, height, width).contiguous()


def _splat(out: Tensor, groups: NDArray, count: NDArray, member: NDArray, slot: NDArray, place: NDArray,
           wide: tuple[int, int], pixel_size: tuple[float, float], energy: float) -> None:
    """Add the spectra of all groups (one slice, one element) to the slices in `out`."""
    device = out.device
    elements, which = np.unique(groups & 255, return_inverse=True)
    kernels = torch.stack([atom_kernel(int(n), wide, pixel_size, energy) for n in elements]).to(device)
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
        spectrum = torch.bmm(y.transpose(1, 2), x) * kernels[torch.from_numpy(which[chosen]).to(device)]
        out.index_add_(0, torch.from_numpy(groups[chosen] >> 8).to(device), spectrum)


def _shares(coordinate: Tensor, length: int, full: bool) -> Tensor:
    """Transform of an atom's two shares along one axis: (1 − f) e^(−2πikn) + f e^(−2πik(n+1)); (g, n, k)."""
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


def structure_of(atoms: Atoms) -> Structure:
    """ASE atoms in a box as (numbers, positions (z, y, x) in Å)."""
    return atoms.numbers, atoms.positions[:, ::-1].copy()
