"""What the readers share: the error they raise, options, and axes put into order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from ...base.extras import require
from ..dataset import DataError, chunks

if TYPE_CHECKING:
    import h5py

MAX_BYTES = 1 << 50  # no file is that large: a header that says so is damaged

# HDF5's registered compressions that hdf5plugin brings, by number
_PLUGINS = {
    307: "BZip2", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle",
    32013: "ZFP", 32015: "Zstandard", 32017: "SZ", 32018: "FCIDECOMP",
    32024: "SZ3", 32026: "Blosc2", 32028: "SPERR",
}  # fmt: skip


class ReadError(DataError):
    """A file that cannot be read, and why."""


@dataclass(frozen=True)
class Options:
    """What the caller knows that the file may not say."""

    dataset: str | None = None
    scan_shape: tuple[int, int] | None = None
    axes: str | None = None


def arrange(array: Any, options: Options, name: str) -> Any:
    """A stored array of three or four axes as a lazy (Ny, Nx, Ky, Kx).

    Raises
    ------
    ReadError
        If the axes cannot be what they are said to be.
    """
    shape = tuple(int(n) for n in array.shape)
    if len(shape) not in (3, 4) or 0 in shape:
        raise ReadError(
            f"{name} holds an array of shape {shape}; 4D-STEM data have four axes, or three (a "
            "list of patterns)"
        )
    if array.dtype.kind not in "uif":
        raise ReadError(f"{name} holds values of type {array.dtype}; patterns are real numbers")
    axes = options.axes or ("yxuv" if len(shape) == 4 else "nuv")
    if sorted(axes) not in (sorted("yxuv"), sorted("nuv")) or len(axes) != len(shape):
        raise ReadError(f"axes are an order of 'yxuv' or 'nuv' for {len(shape)} axes, got {axes!r}")
    lazy = array
    if not isinstance(array, da.Array):
        blocks = chunks(shape, array.dtype.itemsize) if axes == "yxuv" else "auto"
        lazy = da.from_array(array, chunks=blocks, name=False)
    order = "nuv" if "n" in axes else "yxuv"
    lazy = lazy.transpose([axes.index(a) for a in order])
    if order == "nuv":
        if options.scan_shape is None:
            raise ReadError(
                f"{name} holds a list of {lazy.shape[0]} patterns: say how the scan was shaped "
                "(scan_shape)"
            )
        ny, nx = options.scan_shape
        if ny * nx != lazy.shape[0]:
            raise ReadError(f"{name} holds {lazy.shape[0]} patterns, not {ny} × {nx}")
        lazy = lazy.rechunk({0: min(lazy.shape[0], max(nx, 1)), 1: -1, 2: -1}).reshape(
            ny, nx, *lazy.shape[1:]
        )
    elif options.scan_shape is not None and tuple(lazy.shape[:2]) != tuple(options.scan_shape):
        ny, nx = options.scan_shape
        if ny * nx != lazy.shape[0] * lazy.shape[1]:
            raise ReadError(f"{name} has a scan of {lazy.shape[:2]}, not {options.scan_shape}")
        lazy = lazy.reshape(ny, nx, *lazy.shape[2:])
    return lazy.rechunk(chunks(lazy.shape, lazy.dtype.itemsize))


def consistent(dataset: h5py.Dataset, name: str) -> h5py.Dataset:
    """Refuse a dataset whose stored size does not fit its shape, or that cannot be unpacked.

    Raises
    ------
    ReadError
        If blocks are missing, or are compressed in a way that is not known.
    MissingExtra
        If unpacking them needs hdf5plugin, which is not installed.
    """
    _unpackable(dataset, name)
    size = dataset.id.get_storage_size()
    if dataset.chunks is None:
        if size != dataset.size * dataset.dtype.itemsize:
            raise ReadError(
                f"{name}: '{dataset.name}' says shape {dataset.shape} but holds {size} bytes: "
                "damaged"
            )
    else:
        whole = int(
            np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)])
        )
        if dataset.id.get_num_chunks() != whole:
            raise ReadError(
                f"{name}: {whole - dataset.id.get_num_chunks()} of {whole} blocks of "
                f"'{dataset.name}' are missing"
            )
    return dataset


def _unpackable(dataset: h5py.Dataset, name: str) -> None:
    """Bring in the compression of a dataset: detectors use some that h5py does not have."""
    import h5py

    stored = dataset.id.get_create_plist()
    for n in range(stored.get_nfilters()):
        code, _, _, label = stored.get_filter(n)
        if h5py.h5z.filter_avail(code):
            continue
        kind = _PLUGINS.get(code)
        if kind is not None:
            require("hdf5plugin", "formats", f"Reading {name}, compressed by {kind},")
        if not h5py.h5z.filter_avail(code):
            said = kind or label.decode(errors="replace").strip("\0") or "an unknown method"
            raise ReadError(
                f"{name}: '{dataset.name}' is compressed by {said} (HDF5 filter {code}), which "
                "cannot be unpacked with what is installed"
            )
