"""HDF5 files of any layout that holds patterns: which one it is, by content."""

from __future__ import annotations

from pathlib import Path

import h5py

from ...base.hdf5 import guard_hdf5
from ..dataset import FourDSTEM
from . import emd, own
from .common import Options, ReadError, arrange, consistent


def read(path: Path, options: Options) -> FourDSTEM:
    """Our own layout, py4DSTEM and other EMD, or a plain file with one array of patterns."""
    guard_hdf5(path)
    file = h5py.File(path, "r")  # stays open as long as the lazy patterns live
    mark = own.mark_of(file)
    if mark == own.FORMAT:
        return own.read(file, path.name)
    if mark is not None:
        raise ReadError(f"{path.name} is marked {mark!r}: no 4D-STEM data")
    if "optimizable_tensors" in file:
        raise ReadError(
            f"{path.name} is a PtyRAD result, a reconstruction without patterns: open it as a "
            "volume"
        )
    cubes = emd.data_cubes(file)
    wanted = options.dataset
    if wanted is not None:
        cubes = {n: c for n, c in cubes.items() if n in (wanted, wanted.strip("/"))}
    if len(cubes) > 1:
        raise ReadError(
            f"{path.name} holds several data cubes: {', '.join(cubes)}; name one (dataset)"
        )
    if cubes:
        return emd.read(file, next(iter(cubes.values())), options, path.name)
    array = consistent(_only_dataset(file, wanted, path.name), path.name)
    return FourDSTEM(arrange(array, options, path.name))


def _only_dataset(file: h5py.File, wanted: str | None, name: str) -> h5py.Dataset:
    if wanted is not None:
        if wanted not in file or not isinstance(file[wanted], h5py.Dataset):
            raise ReadError(
                f"{name} has no dataset {wanted!r}; it has "
                f"{', '.join(_datasets(file, 1)) or 'none'}"
            )
        return file[wanted]
    for ndim in (4, 3):
        names = _datasets(file, ndim)
        if len(names) == 1:
            return file[names[0]]
        if names:
            raise ReadError(
                f"{name} holds several arrays that could be the patterns: {', '.join(names)}; name "
                "one"
            )
    raise ReadError(f"{name} holds no array of patterns (three or four axes)")


def _datasets(file: h5py.File, least: int) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda n, d: (
            names.append(n)
            if isinstance(d, h5py.Dataset)
            and (d.ndim == least or (least == 1 and d.ndim >= 3))
            and d.dtype.kind in "uif"
            else None
        )
    )
    return names
