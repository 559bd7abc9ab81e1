"""Images that parts of the bright disk see: each scan position's counts, summed in cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..measurement.dataset import DataError, FourDSTEM
from ..measurement.reading import Progress
from .disk import BrightDisk


@dataclass(frozen=True)
class Shadows:
    """Virtual images of cells of the bright disk.

    Attributes
    ----------
    images : ndarray
        (G, Ny, Nx), relative to their mean, which is subtracted.
    cells : ndarray
        (G, 2), on the grid of cells.
    pixels : ndarray
        (G, 2), middle of each cell from that of the disk, detector pixels, (y, x).
    """

    images: NDArray[np.float64]
    cells: NDArray[np.int64]
    pixels: NDArray[np.float64]


def shadows(
    data: FourDSTEM,
    disk: BrightDisk,
    across: int = 11,
    fraction: float = 0.88,
    progress: Progress | None = None,
) -> Shadows:
    """One pass over the patterns.

    Parameters
    ----------
    across : int
        Cells along the diameter.
    fraction : float
        Of the radius: at the rim only one of the two beams that make an image's contrast passes.

    Raises
    ------
    DataError
        If the disk is too small for that.
    """
    ky, kx = data.detector_shape
    y, x = np.mgrid[:ky, :kx]
    dy, dx = y - disk.centre[0], x - disk.centre[1]
    reach = fraction * disk.radius
    inside = np.hypot(dy, dx) <= reach
    if data.mask is not None:
        inside &= data.mask > 0
    size = max(1.0, 2 * reach / across)
    iy, ix = (np.round(d[inside] / size).astype(np.int64) for d in (dy, dx))
    cells, label, members = np.unique(
        np.stack([iy, ix], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    label = label.ravel()
    keep = members >= 0.5 * size**2
    if keep.sum() < 9:
        raise DataError(
            f"the bright disk has a radius of {disk.radius:.1f} detector pixels: too few for "
            "images under different tilts; bin less"
        )
    where = np.arange(len(label))
    adding = csr_matrix((np.ones(len(label), np.float32), (label, where)))[np.flatnonzero(keep)]
    pixels = np.stack([adding @ dy[inside], adding @ dx[inside]], axis=1) / members[keep, None]
    flat, sums, row = np.flatnonzero(inside), [], 0
    for rows in data.data.chunks[0]:  # a row of chunks at a time: it can be watched and ended
        part = np.asarray(data.data[row : row + rows]).reshape(-1, ky * kx)
        total = part.sum(axis=1, dtype=np.float64)
        sums.append((adding @ part[:, flat].T.astype(np.float32)) / np.where(total > 0, total, 1))
        row += rows
        if progress is not None:
            progress(row / data.shape[0])
    images = np.concatenate(sums, axis=1).reshape(-1, *data.scan_shape).astype(np.float64)
    mean = images.mean(axis=(1, 2), keepdims=True)
    lit = mean.ravel() > 0
    if lit.sum() < 9:
        raise DataError("the bright disk is dark: no images under different tilts can be made")
    images = images[lit] / mean[lit] - 1
    return Shadows(images, cells[keep][lit], pixels[lit])
