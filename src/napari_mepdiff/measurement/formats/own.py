"""The project's own HDF5 layout for 4D-STEM data: written whole or not at all, checked when read.

Version 1 (all but ``patterns``, ``checksums`` and ``header`` may be absent)::

    /                  attrs: format b"mepdiff-4dstem", version, seal (SHA-256 of all but the
                       patterns)
    /header            UTF-8 JSON as bytes: calibration, optics, boundary, canvas (H, W),
                       band_limit, provenance, truth {unit, voxel_size (Å), energy (kV),
                       provenance}, truth_instrument (all but its positions)
    /patterns          (Ny, Nx, Ky, Kx), counts or electrons, DC at (Ky // 2, Kx // 2)
    /checksums         (Ny, Nx) uint32, CRC-32 of each pattern's bytes; checked whenever one is read
    /positions         (N, 2) float64, Å, (y, x)
    /mask              (Ky, Kx) float32
    /probe             (M, Ky, Kx) complex64, centred
    /truth             (D, H, W) float32
    /truth_atoms/numbers, positions      (n,), (n, 3) as (z, y, x) in Å
    /truth_positions   (N, 2) float64, Å, (y, x): where the probe truly was
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
from numpy.typing import NDArray

from ...base.hdf5 import MEASUREMENT
from ...base.hdf5_writing import write_hdf5
from ...base.records import plain
from ...physics.optics import Optics
from ...specimen.volume import Volume
from ..dataset import Calibration, FourDSTEM, chunks
from .common import ReadError, consistent

FORMAT, VERSION = MEASUREMENT, 1


def save(data: FourDSTEM, path: str | Path, compression: int = 4) -> None:
    """Write a dataset in the project's own layout; the file appears whole or not at all.

    Parameters
    ----------
    compression : int
        gzip level, 0 to 9.

    Raises
    ------
    OSError
        If the disk is full or refuses; the process goes on and no partial file is left.
    """
    with write_hdf5(path) as (file, check):
        # first of all, so that a glance at the first bytes tells what this file is; bytes of fixed
        # length: strings of any length live in a heap that nothing protects
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
        packed: dict[str, Any] = (
            {"compression": "gzip", "compression_opts": compression, "shuffle": True}
            if (compression)
            else {}
        )
        rows = tuple(c[0] for c in data.data.chunks)
        sums = np.zeros(data.scan_shape, np.uint32)

        def noted(block: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
            check()
            (y0, y1), (x0, x1) = block_info[0]["array-location"][:2]
            sums[y0:y1, x0:x1] = _crc(block)
            return block

        stored = file.create_dataset(
            "patterns",
            shape=data.shape,
            dtype=data.data.dtype,
            fletcher32=True,
            chunks=(1, min(rows[1], 32), *data.detector_shape),
            **packed,
        )
        import dask.array as da

        with dask.config.set(scheduler="threads"):
            da.store(
                data.data.map_blocks(
                    noted, dtype=data.data.dtype, meta=np.empty((0,) * 4, data.data.dtype)
                ),
                stored,
                lock=True,
            )
        file.create_dataset("checksums", data=sums)
        header: dict[str, Any] = {
            "calibration": data.calibration.model_dump(mode="json"),
            "optics": None if data.optics is None else data.optics.model_dump(mode="json"),
            "boundary": data.boundary,
            "canvas": data.canvas,
            "band_limit": data.band_limit,
            "provenance": data.provenance,
        }
        for name in ("positions", "mask", "probe"):
            if getattr(data, name) is not None:
                file.create_dataset(name, data=getattr(data, name))
        if data.truth is not None:
            file.create_dataset("truth", data=data.truth.array, compression="gzip", shuffle=True)
            t = data.truth
            header["truth"] = {
                "unit": t.unit,
                "voxel_size": t.voxel_size,
                "energy": t.energy,
                "provenance": t.provenance,
            }
        if data.truth_atoms is not None:
            group = file.create_group("truth_atoms")
            for name, values in data.truth_atoms.items():
                group.create_dataset(name, data=values)
        if data.truth_instrument is not None:
            known = dict(data.truth_instrument)
            file.create_dataset("truth_positions", data=np.asarray(known.pop("positions"), float))
            header["truth_instrument"] = known
        text = json.dumps(plain(header), default=str, ensure_ascii=False).encode()
        file.create_dataset("header", data=np.frombuffer(text, np.uint8))
        file.attrs["seal"] = np.bytes_(_seal(file))


def _crc(block: NDArray[Any]) -> NDArray[np.uint32]:
    """CRC-32 of each pattern of a block (y, x, Ky, Kx)."""
    out = np.empty(block.shape[:2], np.uint32)
    for y in range(block.shape[0]):
        for x in range(block.shape[1]):
            out[y, x] = zlib.crc32(np.ascontiguousarray(block[y, x]).data)
    return out


def _spelled(value: Any) -> str:
    """An attribute's value in words that do not depend on numpy's version."""
    if isinstance(value, np.ndarray):
        return str(value.tolist())
    if isinstance(value, np.bool_):
        return f"np.{bool(value)}_"
    if isinstance(value, (np.bytes_, np.str_)):
        return f"np.{type(value).__name__}({value.item()!r})"
    if isinstance(value, np.generic):
        return f"np.{type(value).__name__}({value!s})"
    return repr(value)


def _seal(file: h5py.File) -> str:
    """SHA-256 of attributes and datasets; of patterns only shape, type and checksums."""
    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        for key in sorted(item.attrs):
            if key != "seal":
                digest.update(f"{name}@{key}={_spelled(item.attrs[key])};".encode())
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name}:{item.shape}{item.dtype.str};".encode())
            if name != "patterns":
                digest.update(np.ascontiguousarray(item[()]).tobytes())

    add("/", file)
    file.visititems(add)
    return digest.hexdigest()


def _checked(patterns: h5py.Dataset, sums: NDArray[np.uint32], name: str) -> Any:
    """Lazy patterns that compare each pattern with its checksum as it is read."""
    import dask.array as da

    lazy = da.from_array(
        patterns, chunks=chunks(patterns.shape, patterns.dtype.itemsize), name=False
    )

    def compare(block: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
        (y0, y1), (x0, x1) = block_info[0]["array-location"][:2]
        wrong = _crc(block) != sums[y0:y1, x0:x1]
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            raise ReadError(
                f"{name}: {int(wrong.sum())} patterns are damaged, the first at scan position "
                f"({y0 + y}, {x0 + x})"
            )
        return block

    return lazy.map_blocks(compare, dtype=patterns.dtype, meta=np.empty((0,) * 4, patterns.dtype))


def read(file: h5py.File, name: str) -> FourDSTEM:
    """An open file of this layout, with lazy patterns.

    Raises
    ------
    ReadError
        If it is damaged, or written by a newer version.
    """
    version = int(file.attrs["version"])
    if not 1 <= version <= VERSION:
        raise ReadError(
            f"{name} has layout version {version}; this napari-mepdiff reads up to {VERSION}: "
            "update it"
        )
    for key in ("patterns", "checksums", "header"):
        if key not in file:
            raise ReadError(f"{name} lacks its '{key}'")
    patterns = file["patterns"]
    if patterns.ndim != 4 or patterns.dtype.kind not in "uif":
        raise ReadError(f"{name}: 'patterns' is {patterns.dtype} of shape {patterns.shape}")
    consistent(patterns, name)
    if _plain_text(file.attrs["seal"]) != _seal(file):
        raise ReadError(
            f"{name} was damaged or changed after it was written: its seal does not fit"
        )
    sums = file["checksums"][...]
    if sums.shape != patterns.shape[:2]:
        raise ReadError(f"{name}: {sums.shape} checksums for {patterns.shape[:2]} patterns")
    header = json.loads(file["header"][...].tobytes())
    boundary = header["boundary"]
    if boundary not in ("periodic", "extended"):
        raise ReadError(f"{name}: unknown boundary {boundary!r}")
    truth = atoms = None
    if "truth" in file:
        t = header["truth"]
        truth = Volume(
            file["truth"][...],
            tuple(t["voxel_size"]),
            unit=t["unit"],
            energy=t["energy"],
            provenance=t["provenance"],
        )
    if "truth_atoms" in file:
        atoms = {k: file["truth_atoms"][k][...] for k in ("numbers", "positions")}
        if atoms["positions"].shape != (len(atoms["numbers"]), 3):
            raise ReadError(f"{name}: atoms and their positions do not fit together")
    instrument = header.get("truth_instrument")
    if instrument is not None:
        instrument["positions"] = file["truth_positions"][...]
    optional = {k: file[k][...] if k in file else None for k in ("positions", "mask", "probe")}
    if any(v is not None and not np.isfinite(v).all() for v in optional.values()):
        raise ReadError(f"{name}: positions, mask or probe contain NaN or infinite values")
    limit, canvas = header["band_limit"], header["canvas"]
    if limit is not None and not 0 < float(limit) <= 1:
        raise ReadError(f"{name}: a band limit of {limit} is no fraction")
    if canvas is not None and (len(canvas) != 2 or not all(0 < int(n) < 1 << 20 for n in canvas)):
        raise ReadError(f"{name}: a canvas of {canvas} is not possible")
    return FourDSTEM(
        _checked(patterns, sums, name),
        Calibration.model_validate(header["calibration"]),
        optics=None if header["optics"] is None else Optics.model_validate(header["optics"]),
        boundary=boundary,
        canvas=None if canvas is None else (int(canvas[0]), int(canvas[1])),
        truth=truth,
        truth_atoms=atoms,
        truth_instrument=instrument,
        band_limit=limit,
        provenance=header["provenance"],
        **optional,  # type: ignore[arg-type]
    )


def mark_of(file: h5py.File) -> str | None:
    """The project's mark on a file, or None."""
    mark = file.attrs.get("format")
    return None if mark is None else _plain_text(mark)


def _plain_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
