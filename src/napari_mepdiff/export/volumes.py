"""Volumes to TIFF, HDF5, OME-Zarr, MRC and npy, each with a provenance sidecar, and back.

Every export leaves ``NAME.json`` beside it: voxel size, origin, unit, energy and the whole history, so that no file is ever
without its meaning.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic, guard_hdf5, plain, versions
from ..specimen.volume import Unit, Volume

FORMATS = {
    ".tif": "tiff", ".tiff": "tiff", ".h5": "hdf5", ".hdf5": "hdf5", ".zarr": "ome-zarr", ".mrc": "mrc", ".npy": "npy",
}  # fmt: skip


def format_of(path: str | Path) -> str:
    """Format by suffix.

    Raises
    ------
    ValueError
        If the suffix is not one that can be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot write {suffix or 'a file without suffix'}; choose one of {', '.join(FORMATS)}")
    return FORMATS[suffix]


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
    writers: dict[str, Callable[[Volume, Path], None]] = {
        "tiff": _tiff, "hdf5": lambda v, p: v.save(p), "ome-zarr": _ome_zarr, "mrc": _mrc, "npy": _npy,
    }  # fmt: skip
    writers[kind](part, path)
    sidecar = path.with_name(path.name + ".json")
    description = {
        "shape": part.shape, "axes": "zyx", "voxel_size": part.voxel_size, "voxel_size_unit": "Å", "origin": part.origin,
        "unit": part.unit, "energy_kV": part.energy, "slice_thickness": part.slice_thickness,
        "first_slice": "beam entrance", "provenance": {**part.provenance, **(provenance or {})}, "versions": versions(),
    }  # fmt: skip
    with atomic(sidecar) as temporary:
        temporary.write_text(json.dumps(plain(description), indent=1, default=str, ensure_ascii=False) + "\n")
    return [path, sidecar]


def _tiff(volume: Volume, path: Path) -> None:
    import tifffile

    dz, dy, dx = volume.voxel_size
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary, volume.array[:, None], imagej=True, resolution=(1 / dx, 1 / dy), resolutionunit=1,
            metadata={"axes": "ZCYX", "spacing": dz, "unit": "angstrom", "min": float(volume.array.min()),
                      "max": float(volume.array.max()), "Info": f"phase in {volume.unit}"
                      if volume.unit == "rad" else "projected potential in V Angstrom"},
        )


def _mrc(volume: Volume, path: Path) -> None:
    import mrcfile

    dz, dy, dx = volume.voxel_size
    with atomic(path) as temporary, mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(volume.array)
        file.voxel_size = (dx, dy, dz)
        file.header.origin.x, file.header.origin.y, file.header.origin.z = volume.origin[::-1]
        file.add_label(f"napari-mepdiff, {'rad' if volume.unit == 'rad' else 'V Angstrom'}, z=0 at beam entrance")


def _npy(volume: Volume, path: Path) -> None:
    with atomic(path) as temporary:
        np.save(temporary, volume.array)


def _ome_zarr(volume: Volume, path: Path) -> None:
    import zarr
    from ome_zarr.writer import write_multiscales_metadata

    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        group = zarr.open_group(str(temporary), mode="w")
        group.create_array("0", data=volume.array)
        write_multiscales_metadata(
            group,
            [{"path": "0", "coordinateTransformations": [
                {"type": "scale", "scale": list(volume.voxel_size)},
                {"type": "translation", "translation": list(volume.origin)},
            ]}],
            axes=[{"name": n, "type": "space", "unit": "angstrom"} for n in "zyx"],
        )
        group.attrs["mepdiff"] = {"unit": volume.unit, "energy_kV": volume.energy}
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# ---- back again -------------------------------------------------------------------------------------------------
def load_volume(path: str | Path) -> Volume:
    """A volume from any format that :func:`save_volume` writes, a PtyRAD result, or the ground truth of a data set.

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
            return _from_hdf5(path)
        if suffix in (".tif", ".tiff"):
            return _from_tiff(path)
        if suffix == ".mrc":
            return _from_mrc(path)
        if suffix == ".npy":
            return _described(np.load(path, allow_pickle=False), path)
        if suffix == ".zarr":
            return _from_zarr(path)
    except Exception as error:  # damaged files make readers raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path.name} cannot be read as a volume: {text}") from error
    raise ValueError(f"{path.name}: not a format that volumes are read from ({', '.join(FORMATS)})")


def _from_hdf5(path: Path) -> Volume:
    import h5py

    from ..measurement.readers import hdf5, open_4dstem

    guard_hdf5(path)
    with h5py.File(path, "r") as file:
        mark, ptyrad = hdf5.mark_of(file), "optimizable_tensors" in file
    if ptyrad:
        return hdf5.read_ptyrad_result(path)
    if mark == hdf5.FORMAT:
        truth = open_4dstem(path, hash_input=False).truth
        if truth is None:
            raise ValueError("a data set without ground truth")
        return truth
    return Volume.load(path)


def _from_tiff(path: Path) -> Volume:
    import tifffile

    with tifffile.TiffFile(path) as file:
        array = file.asarray()
        meta = file.imagej_metadata or {}
        tags = file.pages[0].tags  # type: ignore[union-attr]
        pixel = [tags[n].value[1] / tags[n].value[0] if n in tags and tags[n].value[0] else None
                 for n in ("YResolution", "XResolution")]
    return _described(array, path, (meta.get("spacing"), *pixel) if meta.get("unit") == "angstrom" else None)


def _from_mrc(path: Path) -> Volume:
    import mrcfile

    with mrcfile.open(path, permissive=False) as file:
        size = tuple(float(getattr(file.voxel_size, n)) for n in "zyx")
        return _described(np.array(file.data), path, size)


def _from_zarr(path: Path) -> Volume:
    import zarr

    group = zarr.open_group(str(path), mode="r")
    attributes: Any = dict(group.attrs)
    image = attributes.get("ome", attributes)["multiscales"][0]
    level = image["datasets"][0]
    array = group[level["path"]]
    if array.nchunks_initialized != array.nchunks and np.asarray(array).any():  # type: ignore[union-attr]
        raise ValueError("some chunks are missing")
    scale = next(t["scale"] for t in level["coordinateTransformations"] if t["type"] == "scale")
    return _described(np.asarray(array), path, tuple(map(float, scale)))


def _described(array: Any, path: Path, voxel_size: Any = None) -> Volume:
    """Array and sidecar, or array and what the file itself says."""
    sidecar = path.with_name(path.name + ".json")
    if sidecar.exists():
        d = json.loads(sidecar.read_text())
        if tuple(d["shape"]) == tuple(array.shape):
            thickness = d.get("slice_thickness")
            return Volume(array, tuple(d["voxel_size"]), tuple(d["origin"]), d["unit"], d["energy_kV"],
                          None if thickness is None else tuple(thickness), d["provenance"])
    if voxel_size is None or any(v is None for v in voxel_size):
        raise ValueError("the file does not say its voxel size and there is no sidecar (.json) beside it")
    return Volume(array, tuple(float(v) for v in voxel_size))  # type: ignore[arg-type]
