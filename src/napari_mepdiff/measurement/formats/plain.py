"""Formats without a calibration: npy, MATLAB, zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...base.extras import require
from ...base.hdf5 import guard_hdf5
from ..dataset import FourDSTEM
from .common import Options, ReadError, arrange, consistent

_MAT5_BUDGET = 8 * 1024**3


def read_npy(path: Path, options: Options) -> FourDSTEM:
    """A numpy file, mapped into memory."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return FourDSTEM(arrange(array, options, path.name))


def read_mat5(path: Path, options: Options) -> FourDSTEM:
    """MATLAB up to v7: not lazy, since the format is compressed as a whole."""
    import scipy.io

    names = {n: (s, t) for n, s, t in scipy.io.whosmat(path)}
    name = _choose(names, options.dataset, path.name)
    if np.prod(names[name][0], dtype=float) * 8 > _MAT5_BUDGET:
        raise ReadError(
            f"{name} in {path.name} has shape {names[name][0]}: too large for this format; save it "
            "as v7.3"
        )
    array = scipy.io.loadmat(path, variable_names=[name])[name]
    return FourDSTEM(arrange(array, options, path.name))


def read_mat73(path: Path, options: Options) -> FourDSTEM:
    """MATLAB v7.3 (HDF5): axes are put back into MATLAB's order."""
    guard_hdf5(path)
    file = h5py.File(path, "r")
    names = {n: (d.shape, "") for n, d in file.items() if isinstance(d, h5py.Dataset)}
    array = consistent(file[_choose(names, options.dataset, path.name)], path.name)
    import dask.array as da

    lazy = da.from_array(array, chunks=array.chunks or "auto", name=False).transpose()
    return FourDSTEM(arrange(lazy, options, path.name))


def read_zarr(path: Path, options: Options) -> FourDSTEM:
    """A zarr array, or a group with one array of patterns; missing chunks are an error."""
    zarr = require("zarr", "formats", "Reading .zarr stores")
    store = zarr.open(str(path), mode="r")
    if isinstance(store, zarr.Group):
        found = {}
        for name, item in store.members(max_depth=4):
            if isinstance(item, zarr.Array):
                found[name] = (item.shape, "")
        array = store[_choose(found, options.dataset, path.name)]
    else:
        array = store
    assert isinstance(array, zarr.Array)
    if array.nchunks_initialized != array.nchunks:
        raise ReadError(
            f"{path.name}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks "
            "are missing"
        )
    return FourDSTEM(arrange(array, options, path.name))


def _choose(names: dict[str, Any], wanted: str | None, name: str) -> str:
    if wanted is not None:
        if wanted not in names:
            raise ReadError(f"{name} has no array {wanted!r}; it has {', '.join(names) or 'none'}")
        return wanted
    for ndim in (4, 3):
        fitting = [n for n, (shape, _) in names.items() if len(shape) == ndim]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ReadError(
                f"{name} holds several arrays that could be the patterns: {', '.join(fitting)}; "
                "name one"
            )
    raise ReadError(f"{name} holds no array of patterns (three or four axes)")
