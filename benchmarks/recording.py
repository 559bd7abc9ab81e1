"""A large measurement in a file that takes little room: one compressed block, stored over and over.

Every byte is unpacked as in a real measurement.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write(path: Path, gigabytes: float, block: NDArray[np.uint16]) -> tuple[int, ...]:
    """HDF5 of that size when read: (n, n, Ky, Kx) uint16, gzip.

    Parameters
    ----------
    block : ndarray
        (1, columns, Ky, Kx) uint16: what the file holds again and again; n is a multiple of its
        columns.

    Returns
    -------
    tuple of int
        The shape.
    """
    import h5py

    _, columns, *detector = block.shape
    side = int(np.ceil((gigabytes * 1e9 / block[0, 0].nbytes) ** 0.5 / columns) * columns)
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        data = file.create_dataset(
            "data",
            (side, side, *detector),
            np.uint16,
            chunks=block.shape,
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        data[0:1, 0:columns] = block
        _, packed = data.id.read_direct_chunk((0, 0, 0, 0))
        for row in range(side):
            for column in range(0, side, columns):
                data.id.write_direct_chunk((row, column, 0, 0), packed)
        return data.shape
