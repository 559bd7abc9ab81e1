"""Two volumes side by side: difference, scores slice by slice, profiles along depth, and patterns
against the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..measurement.dataset import FourDSTEM
from ..physics.likelihood import Likelihood
from ..reconstruction.problem import Problem
from ..specimen.volume import Volume
from .judge import judge
from .metrics import Scores, psnr, ssim


@dataclass(frozen=True)
class Comparison:
    """A reconstruction against a reference.

    Attributes
    ----------
    reference, test : Volume
        In the unit of the reference, on the reference's grid.
    difference : ndarray
        test − reference, (D, H, W).
    psnr, ssim : ndarray
        (D,), dB and 1; each slice normalised on its own (the paper's normalisation).
    scores : Scores
        Of volume and depth sum.
    """

    reference: Volume
    test: Volume
    difference: NDArray[np.float32]
    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    scores: Scores


def compare(
    reference: Volume, test: Volume, data: FourDSTEM | None = None, *, deviance: bool = False
) -> Comparison:
    """Compare two volumes of one grid.

    Parameters
    ----------
    data : FourDSTEM, optional
        The measurement: its scanned field is what counts, and, where the reference is its own
        ground truth, its atoms tell whether they are in the right slices.
    deviance : bool
        Whether to compute the misfit of `test` against `data` (a second or more).

    Raises
    ------
    ValueError
        If shapes or voxel sizes differ, or a unit cannot be converted.
    """
    if reference.shape != test.shape:
        raise ValueError(
            f"the reference has {_voxels(reference)}, the run {_voxels(test)}: only volumes of one "
            "grid can be compared voxel by voxel"
        )
    test = test.to_unit(reference.unit, test.energy or reference.energy)
    scores = judge(test, reference, data, with_deviance=deviance)
    a, b = reference.array, test.array
    if min(a.shape[1:]) >= 3:
        each = [(psnr(p, q), ssim(p, q)) for p, q in zip(a, b, strict=True)]
    else:
        each = [(psnr(p, q), np.nan) for p, q in zip(a, b, strict=True)]
    table = np.array(each, dtype=np.float64)
    return Comparison(reference, test, b - a, table[:, 0], table[:, 1], scores)


def depth_profile(
    volume: Volume, y: float, x: float, radius: float = 0.3
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean within `radius` of a column in every slice.

    Parameters
    ----------
    y, x : float
        Å, in the volume's frame (its origin counts).
    radius : float
        Å; at least the nearest voxel is taken.

    Returns
    -------
    depth, value : ndarray
        Middle of each slice in Å below the entrance, and the mean there, (D,).

    Raises
    ------
    ValueError
        If the column lies outside the volume.
    """
    dz, dy, dx = volume.voxel_size
    row, column = (y - volume.origin[1]) / dy, (x - volume.origin[2]) / dx
    height, width = volume.shape[1:]
    if not (-0.5 <= row < height - 0.5 and -0.5 <= column < width - 0.5):
        raise ValueError(f"({y:.2f}, {x:.2f}) Å lies outside the volume")
    iy, ix = np.mgrid[:height, :width]
    near = np.hypot((iy - row) * dy, (ix - column) * dx) <= radius
    near[round(row), round(column)] = True
    value = volume.array[:, near].mean(axis=1, dtype=np.float64)
    thickness = np.array(volume.slice_thickness or (dz,) * len(value))
    return np.cumsum(thickness) - thickness / 2, value


def patterns_at(
    volume: Volume, data: FourDSTEM, y: int, x: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measured and modelled diffraction pattern at a scan position (the paper's figure 11).

    Only this position is modelled.

    Returns
    -------
    measured, modelled : ndarray
        (Ky, Kx), electrons, DC at the centre.

    Raises
    ------
    ValueError
        If the volume does not belong to these data, or there is no such position.
    """
    ny, nx = data.scan_shape
    if not (0 <= y < ny and 0 <= x < nx):
        raise ValueError(f"position ({y}, {x}) lies outside the scan of {ny} × {nx}")
    one = Problem.from_data(
        data,
        slices=volume.shape[0],
        slice_thickness=volume.slice_thickness or volume.voxel_size[0],
        check=False,
        position=(y, x),
    )
    if one.shape != volume.shape:
        raise ValueError(
            f"the volume has {_voxels(volume)}, the data ask for "
            f"{' × '.join(map(str, one.shape))}: it does not belong to them"
        )
    like = one.likelihood("poisson")
    assert isinstance(like, Likelihood)
    array = torch.from_numpy(volume.to_unit("rad", one.energy).array)
    model = like.patterns(array, np.array([0]))
    return one.patterns[0].astype(np.float64), model[0].cpu().numpy().astype(np.float64)


def _voxels(volume: Volume) -> str:
    size = " × ".join(f"{v:.3g}" for v in volume.voxel_size)
    return f"{' × '.join(map(str, volume.shape))} voxels of {size} Å"
