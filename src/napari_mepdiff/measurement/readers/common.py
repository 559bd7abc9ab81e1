"""What the readers share: the error they raise, options, and axes put into order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da

from ..dataset import DataError, chunks

MAX_BYTES = 1 << 50  # no file is that large: a header that says so is damaged


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
        raise ReadError(f"{name} holds an array of shape {shape}; 4D-STEM data have four axes, or three (a list of patterns)")
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
            raise ReadError(f"{name} holds a list of {lazy.shape[0]} patterns: say how the scan was shaped (scan_shape)")
        ny, nx = options.scan_shape
        if ny * nx != lazy.shape[0]:
            raise ReadError(f"{name} holds {lazy.shape[0]} patterns, not {ny} × {nx}")
        lazy = lazy.rechunk({0: min(lazy.shape[0], max(nx, 1)), 1: -1, 2: -1}).reshape(ny, nx, *lazy.shape[1:])
    elif options.scan_shape is not None and tuple(lazy.shape[:2]) != tuple(options.scan_shape):
        ny, nx = options.scan_shape
        if ny * nx != lazy.shape[0] * lazy.shape[1]:
            raise ReadError(f"{name} has a scan of {lazy.shape[:2]}, not {options.scan_shape}")
        lazy = lazy.reshape(ny, nx, *lazy.shape[2:])
    return lazy.rechunk(chunks(lazy.shape, lazy.dtype.itemsize))
