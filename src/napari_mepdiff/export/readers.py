"""One function a format: a volume from a file, with what the file or its sidecar says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.extras import require
from ..base.hdf5 import guard_hdf5
from ..measurement.formats import open_4dstem
from ..measurement.formats.ptyrad import read_ptyrad_result
from ..specimen.volume import Volume


def hdf5(path: Path) -> Volume:
    kind = guard_hdf5(path)
    if kind == "ptyrad":
        return read_ptyrad_result(path)
    if kind == "measurement":
        truth = open_4dstem(path, hash_input=False).truth
        if truth is None:
            raise ValueError("a data set without ground truth")
        return truth
    return Volume.load(path)


def tiff(path: Path) -> Volume:
    import tifffile

    with tifffile.TiffFile(path) as file:
        array = file.asarray()
        meta = file.imagej_metadata or {}
        tags = file.pages[0].tags  # type: ignore[union-attr]
        pixel = [
            tags[n].value[1] / tags[n].value[0] if n in tags and tags[n].value[0] else None
            for n in ("YResolution", "XResolution")
        ]
    return described(
        array, path, (meta.get("spacing"), *pixel) if meta.get("unit") == "angstrom" else None
    )


def mrc(path: Path) -> Volume:
    mrcfile = require("mrcfile", "formats", "Reading .mrc files")
    with mrcfile.open(path, permissive=False) as file:
        size = tuple(float(getattr(file.voxel_size, n)) for n in "zyx")
        return described(np.array(file.data), path, size)


def ome_zarr(path: Path) -> Volume:
    zarr = require("zarr", "formats", "Reading OME-Zarr")
    group = zarr.open_group(str(path), mode="r")
    attributes: Any = dict(group.attrs)
    image = attributes.get("ome", attributes)["multiscales"][0]
    level = image["datasets"][0]
    array = group[level["path"]]
    if array.nchunks_initialized != array.nchunks and np.asarray(array).any():
        raise ValueError("some chunks are missing")
    scale = next(t["scale"] for t in level["coordinateTransformations"] if t["type"] == "scale")
    return described(np.asarray(array), path, tuple(map(float, scale)))


def described(
    array: NDArray[Any], path: Path, voxel_size: Sequence[float | None] | None = None
) -> Volume:
    """Array and sidecar, or array and what the file itself says (dz, dy, dx in Å).

    Raises
    ------
    ValueError
        If neither tells the size of a voxel.
    """
    sidecar = path.with_name(path.name + ".json")
    if sidecar.exists():
        d = json.loads(sidecar.read_text())
        if tuple(d["shape"]) == tuple(array.shape):
            thickness = d.get("slice_thickness")
            return Volume(
                array,
                tuple(d["voxel_size"]),
                tuple(d["origin"]),
                d["unit"],
                d["energy_kV"],
                None if thickness is None else tuple(thickness),
                d["provenance"],
            )
    known = [v for v in voxel_size or () if v is not None]
    if len(known) != 3:
        raise ValueError(
            "the file does not say its voxel size and there is no sidecar (.json) beside it"
        )
    return Volume(array, (float(known[0]), float(known[1]), float(known[2])))
