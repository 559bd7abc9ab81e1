"""How close a reconstruction is to the truth.

PSNR and SSIM are the paper's (section 4): after each volume is normalised to [0, 1] on its own, for
the volume and for its depth sum. Both are flattered by a volume without any depth; the depth
correlation and the fraction of atoms in the right slice are not (0 for the depth sum spread
evenly).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..specimen.volume import Volume

Array = NDArray[Any]
TITLES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "psnr_sum": "PSNR of the depth sum",
    "ssim_sum": "SSIM of the depth sum",
    "correlation": "correlation",
    "depth_correlation": "depth correlation",
    "atoms_in_slice": "share of atoms in their slice",
    "deviance": "misfit over shot noise",
}  # of the fields of Scores


@dataclass(frozen=True)
class Scores:
    """All metrics of one reconstruction; those that could not be computed are None.

    Attributes
    ----------
    psnr, psnr_sum : float
        dB, of the volume and of its depth sum.
    ssim, ssim_sum : float
    correlation : float
    depth_correlation : float or None
    atoms_in_slice : float or None
        Share, see :func:`atoms_in_slice`.
    deviance : float or None
        Poisson deviance of the measurement over its expectation; 1 at shot noise.
    missing : mapping
        Name of a metric that is None, and why.
    """

    psnr: float
    ssim: float
    psnr_sum: float
    ssim_sum: float
    correlation: float
    depth_correlation: float | None
    atoms_in_slice: float | None = None
    deviance: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float | None]:
        """Name to number."""
        return {k: v for k, v in asdict(self).items() if k != "missing"}


def normalise(array: Array) -> NDArray[np.float64]:
    """To [0, 1]; a constant becomes 0 (the paper's instance normalisation)."""
    a = np.asarray(array, dtype=np.float64)
    span = a.max() - a.min()
    return (a - a.min()) / span if span > 0 else np.zeros_like(a)


def psnr(truth: Array, test: Array) -> float:
    """Peak signal-to-noise ratio in dB after normalisation of both; infinite if equal."""
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(normalise(truth), normalise(test), data_range=1.0))


def ssim(truth: Array, test: Array) -> float:
    """Structural similarity after normalisation of both; scikit-image's 7-voxel window, in 2D or
    3D.
    """
    from skimage.metrics import structural_similarity

    window = min(7, *(n - 1 + n % 2 for n in truth.shape))
    if window < 3:
        raise ValueError(f"SSIM needs at least 3 voxels along each axis, got {truth.shape}")
    return float(
        structural_similarity(normalise(truth), normalise(test), data_range=1.0, win_size=window)
    )


def correlation(truth: Array, test: Array) -> float:
    """Pearson correlation of the voxels; 0 if one is constant."""
    a, b = (np.asarray(v, dtype=np.float64) - np.mean(v) for v in (truth, test))
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def depth_correlation(truth: Array, test: Array) -> float | None:
    """Correlation after subtracting each column's mean over depth; None for one slice."""
    if truth.shape[0] < 2:
        return None
    a, b = (np.asarray(v, dtype=np.float64) for v in (truth, test))
    return correlation(a - a.mean(axis=0), b - b.mean(axis=0))


def atoms_in_slice(
    test: Array,
    atoms: dict[str, Array],
    voxel_size: tuple[float, float, float],
    radius: float = 0.35,
) -> float | None:
    """Fraction of atoms whose own slice is the brightest of their column.

    For each atom the volume is averaged within `radius` (Å, lateral) of its place in every slice.
    Columns that hold the same kind of place in several slices have several right answers: an atom
    counts when its slice ranks, by this average, among the first n, n being the slices that hold
    atoms within the radius, and above the column's mean (an even spread gets 0). Columns that are
    full from top to bottom say nothing about depth and are left out.

    Parameters
    ----------
    test : ndarray
        (D, H, W).
    atoms : dict
        ``positions`` (n, 3) as (z, y, x) in Å from voxel (0, 0, 0).

    Returns
    -------
    float or None
        None if no atom can tell.
    """
    positions = np.asarray(atoms["positions"], dtype=np.float64)
    depth, height, width = test.shape
    if len(positions) == 0 or depth < 2:
        return None
    dz, dy, dx = voxel_size
    slices = np.clip((positions[:, 0] / dz).astype(int), 0, depth - 1)
    reach_y, reach_x = int(np.ceil(radius / dy)), int(np.ceil(radius / dx))
    oy, ox = np.mgrid[-reach_y : reach_y + 1, -reach_x : reach_x + 1]
    right = asked = 0
    for z, (_, y, x) in zip(slices, positions, strict=True):
        cy, cx = round(y / dy), round(x / dx)
        near = np.hypot((cy + oy) * dy - y, (cx + ox) * dx - x) <= radius
        rows, cols = (cy + oy)[near] % height, (cx + ox)[near] % width
        column = np.asarray(test[:, rows, cols], dtype=np.float64).mean(axis=1)
        apart_y = np.abs(positions[:, 1] - y)
        apart_x = np.abs(positions[:, 2] - x)
        same = (
            np.hypot(
                np.minimum(apart_y, height * dy - apart_y),
                np.minimum(apart_x, width * dx - apart_x),
            )
            <= radius
        )
        occupied = len(set(slices[same]))
        if occupied == depth:
            continue
        asked += 1
        level = (
            column.mean()
            + 1e-3 * max(column.max() - column.min(), 1e-12)
            + 1e-6 * abs(column).max()
        )
        rank = int((column > column[z]).sum())
        right += rank < occupied and column[z] > level
    return right / asked if asked else None


def evaluate(
    test: Volume,
    truth: Volume,
    atoms: dict[str, Array] | None = None,
    deviance: float | None = None,
    scanned: tuple[slice, slice] | None = None,
    missing: Mapping[str, str] | None = None,
) -> Scores:
    """All metrics of a reconstruction against the truth.

    Parameters
    ----------
    atoms : dict, optional
        ``positions`` (n, 3) as (z, y, x) in Å from voxel (0, 0, 0) of the truth.
    deviance : float, optional
        Of the measurement, over its expectation.
    scanned : (slice, slice), optional
        Voxels (y, x) to compare, e.g. the scanned field of an extended canvas.
    missing : mapping, optional
        Why atoms or deviance are not given.

    Raises
    ------
    ValueError
        If shapes or voxel sizes differ.
    """
    if test.shape != truth.shape:
        raise ValueError(
            f"the reconstruction is {test.shape}, the truth {truth.shape}: compare like with like"
        )
    if not np.allclose(test.voxel_size, truth.voxel_size, rtol=1e-3):
        raise ValueError(f"voxel sizes differ: {test.voxel_size} and {truth.voxel_size} Å")
    a, b = truth.array, test.to_unit(truth.unit, truth.energy).array
    if scanned is not None:
        a, b = a[:, scanned[0], scanned[1]], b[:, scanned[0], scanned[1]]
        if atoms is not None:
            low = np.array([s.start or 0 for s in scanned]) * truth.voxel_size[1:]
            shifted = np.asarray(atoms["positions"], dtype=np.float64) - [0, *low]
            high = np.array(a.shape[1:]) * truth.voxel_size[1:]
            inside = ((shifted[:, 1:] >= 0) & (shifted[:, 1:] < high)).all(axis=1)
            atoms = {"positions": shifted[inside]}
    share = None if atoms is None else atoms_in_slice(b, atoms, truth.voxel_size)
    depth = depth_correlation(a, b)
    why = {
        "depth_correlation": "the volume has one slice",
        "atoms_in_slice": "the places of the atoms are not known"
        if atoms is None
        else "no column of atoms has an empty slice, so that none can tell",
        "deviance": "no measurement was given",
        **(missing or {}),
    }
    found = {"depth_correlation": depth, "atoms_in_slice": share, "deviance": deviance}
    return Scores(
        psnr=psnr(a, b),
        ssim=ssim(a, b),
        psnr_sum=psnr(a.sum(0), b.sum(0)),
        ssim_sum=ssim(a.sum(0), b.sum(0)),
        correlation=correlation(a, b),
        depth_correlation=depth,
        atoms_in_slice=share,
        deviance=deviance,
        missing={name: why[name] for name, value in found.items() if value is None},
    )
