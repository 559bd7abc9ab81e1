"""Volumes to TIFF, HDF5, OME-Zarr, MRC and npy, each with a provenance sidecar, and back.

Every export leaves ``NAME.json`` beside it: voxel size, origin, unit, energy and the whole history,
so that no file is ever without its meaning. Where the one cannot be written the other is not left
either.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..base.extras import MissingExtra, available, require
from ..base.files import atomic, saying_no_room
from ..base.hdf5 import NoAnswer
from ..base.records import plain, versions
from ..specimen.volume import Unit, Volume
from . import readers, writers

FORMATS = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".zarr": "ome-zarr",
    ".mrc": "mrc",
    ".npy": "npy",
}
NEEDS = {"mrc": ("mrcfile",), "ome-zarr": ("zarr", "ome_zarr")}  # packages of the extra formats


def format_of(path: str | Path) -> str:
    """Format by suffix.

    Raises
    ------
    ValueError
        If the suffix is not one that can be written.
    MissingExtra
        If the package that writes it is not installed: to be known before a run, not after it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"cannot write {suffix or 'a file without suffix'}; choose one of {', '.join(FORMATS)}"
        )
    kind = FORMATS[suffix]
    for module in NEEDS.get(kind, ()):
        if not available(module):
            require(module, "formats", f"Writing {suffix} files")
    return kind


def save_volume(
    volume: Volume,
    path: str | Path,
    *,
    slices: slice = slice(None),
    y: slice = slice(None),
    x: slice = slice(None),
    unit: Unit | None = None,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
) -> list[Path]:
    """Write a volume or a part of it.

    Parameters
    ----------
    path : str or Path
        The suffix says the format: .tif, .h5, .zarr (OME-Zarr), .mrc, .npy.
    slices, y, x : slice
        Voxels to keep.
    unit : 'rad' or 'V·Å', optional
        Convert first.
    overwrite : bool
        Replace what is there.
    provenance : dict, optional
        Added to the sidecar.

    Returns
    -------
    list of Path
        The files written: the volume and its sidecar.

    Raises
    ------
    FileExistsError
        If there is something at `path` already.
    ValueError
        If the format is unknown, the part is empty, or the unit cannot be had.
    MissingExtra
        If the format needs a package that is not installed.
    NoRoom, OSError
        If the disk has no room for both files, or refuses: neither is left.
    """
    path = Path(path)
    kind = format_of(path)
    part = volume.crop(slices, y, x)
    if unit is not None:
        part = part.to_unit(unit)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or allow overwriting")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    sidecar = path.with_name(path.name + ".json")
    description = {
        "shape": part.shape,
        "axes": "zyx",
        "voxel_size": part.voxel_size,
        "voxel_size_unit": "Å",
        "origin": part.origin,
        "unit": part.unit,
        "energy_kV": part.energy,
        "slice_thickness": part.slice_thickness,
        "first_slice": "beam entrance",
        "provenance": {**part.provenance, **(provenance or {})},
        "versions": versions(),
    }
    text = json.dumps(plain(description), indent=1, default=str, ensure_ascii=False) + "\n"
    written = False
    try:
        with atomic(sidecar) as temporary:
            # the sidecar has its room on the disk before the volume is begun
            with saying_no_room(path), open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _WRITERS[kind](part, path)
            written = True
    except BaseException:
        if written:  # but not its sidecar: it would pass for a whole export
            _remove(path)
        raise
    return [path, sidecar]


_WRITERS: dict[str, Callable[[Volume, Path], object]] = {
    "tiff": writers.tiff,
    "hdf5": lambda volume, path: volume.save(path),
    "ome-zarr": writers.ome_zarr,
    "mrc": writers.mrc,
    "npy": writers.npy,
}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def load_volume(path: str | Path) -> Volume:
    """A volume from any format that :func:`save_volume` writes, a PtyRAD result, or the ground
    truth of a data set.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or no volume in it; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    suffix = path.suffix.lower()
    try:
        if suffix in (".h5", ".hdf5"):
            return readers.hdf5(path)
        if suffix in (".tif", ".tiff"):
            return readers.tiff(path)
        if suffix == ".mrc":
            return readers.mrc(path)
        if suffix == ".npy":
            return readers.described(np.load(path, allow_pickle=False), path)
        if suffix == ".zarr":
            return readers.ome_zarr(path)
    except (NoAnswer, MissingExtra):
        raise
    except Exception as error:  # damaged files make readers raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path.name} cannot be read as a volume: {text}") from error
    raise ValueError(f"{path.name}: not a format that volumes are read from ({', '.join(FORMATS)})")
