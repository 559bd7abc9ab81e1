"""Starting: the volume of one run as the start of another, on slices and a canvas of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..reconstruction.problem import Problem
    from ..specimen.volume import Volume


def laid_on(problem: Problem, volume: Volume) -> NDArray[np.float32]:
    """A volume on the grid of a problem; the phase of what both hold stays.

    Slices are cut or joined by how far they overlap in depth; what is beyond the volume is vacuum.

    Parameters
    ----------
    problem : Problem
        Of the run that begins from it.
    volume : Volume
        In rad, with voxels of the same size across the beam.

    Returns
    -------
    ndarray
        (D, H, W), rad.

    Raises
    ------
    ValueError
        If its voxels are of another size across the beam.
    """
    dy, dx = problem.voxel_size[1:]
    if not np.allclose(volume.voxel_size[1:], (dy, dx), rtol=1e-3):
        raise ValueError(
            f"its voxels are {volume.voxel_size[1]:.4g} × {volume.voxel_size[2]:.4g} Å across the "
            f"beam, those of the run {dy:.4g} × {dx:.4g} Å"
        )
    deep = volume.shape[0]
    before = _faces(volume.slice_thickness or (volume.voxel_size[0],) * deep)
    share = _shares(before, _faces(problem.slice_thickness))
    slices = np.tensordot(share, volume.array, axes=1).astype(np.float32)
    out = np.zeros(problem.shape, np.float32)
    offset = [round((volume.origin[n] - problem.origin[n]) / problem.voxel_size[n]) for n in (1, 2)]
    there, here = [], []
    for size, whole, first in zip(volume.shape[1:], problem.shape[1:], offset, strict=True):
        low, high = max(0, first), max(0, min(whole, first + size))
        there.append(slice(low, high))
        here.append(slice(low - first, max(low, high) - first))
    out[:, there[0], there[1]] = slices[:, here[0], here[1]]
    return out


def _faces(thickness: tuple[float, ...]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(thickness)])


def _shares(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D', D): which share of each old slice lies in each new one."""
    low = np.maximum(new[:-1, None], old[None, :-1])
    high = np.minimum(new[1:, None], old[None, 1:])
    share: NDArray[np.float64] = np.clip(high - low, 0, None) / np.diff(old)[None]
    return share
