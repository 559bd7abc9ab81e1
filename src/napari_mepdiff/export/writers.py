"""One function a format: a volume to a file, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from ..base.extras import require
from ..base.files import atomic, saying_no_room
from ..specimen.volume import Volume


def tiff(volume: Volume, path: Path) -> None:
    import tifffile

    dz, dy, dx = volume.voxel_size
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            volume.array[:, None],
            imagej=True,
            resolution=(1 / dx, 1 / dy),
            resolutionunit=1,
            metadata={
                "axes": "ZCYX",
                "spacing": dz,
                "unit": "angstrom",
                "min": float(volume.array.min()),
                "max": float(volume.array.max()),
                "Info": f"phase in {volume.unit}"
                if volume.unit == "rad"
                else "projected potential in V Angstrom",
            },
        )


def mrc(volume: Volume, path: Path) -> None:
    interpreter = require("mrcfile.mrcinterpreter", "formats", "Writing .mrc files")
    dz, dy, dx = volume.voxel_size
    # our own stream: mrcfile leaves its own open where the disk is full
    with atomic(path) as temporary, temporary.open("w+b") as stream:
        file = interpreter.MrcInterpreter()
        file._create_default_attributes()  # as its documentation says of a stream to write to
        file._iostream = stream
        file.set_data(volume.array)
        file.voxel_size = (dx, dy, dz)
        file.header.origin.x, file.header.origin.y, file.header.origin.z = volume.origin[::-1]
        file.add_label(
            f"napari-mepdiff, {volume.unit.replace('V·Å', 'V Angstrom')}, z=0 at beam entrance"
        )
        file.close()


def npy(volume: Volume, path: Path) -> None:
    with atomic(path) as temporary:
        np.save(temporary, volume.array)


def ome_zarr(volume: Volume, path: Path) -> None:
    zarr = require("zarr", "formats", "Writing OME-Zarr")
    writer = require("ome_zarr.writer", "formats", "Writing OME-Zarr")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with saying_no_room(path):
            group = zarr.open_group(str(temporary), mode="w")
            array = group.create_array(
                "0", shape=volume.shape, chunks=(1, *volume.shape[1:]), dtype=volume.array.dtype
            )
            for number, layer in enumerate(volume.array):
                # slice by slice: of chunks written together, those still under way when one finds
                # no room would land after the folder is removed
                array[number] = layer
            writer.write_multiscales_metadata(
                group,
                [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": list(volume.voxel_size)},
                            {"type": "translation", "translation": list(volume.origin)},
                        ],
                    }
                ],
                axes=[{"name": n, "type": "space", "unit": "angstrom"} for n in "zyx"],
            )
            group.attrs["mepdiff"] = {"unit": volume.unit, "energy_kV": volume.energy}
            # a folder cannot be replaced in one step: the old one steps aside first
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
    finally:
        if not path.exists() and old.exists():
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
