"""HDF5: the project's own layout, py4DSTEM/EMD, PtyRAD, and plain files with one array of patterns.

Own layout, version 1 (all but ``patterns``, ``checksums`` and ``header`` may be absent)::

    /                  attrs: format b"mepdiff-4dstem", version, seal (SHA-256 of all but the patterns)
    /header            UTF-8 JSON as bytes: calibration, optics, boundary, canvas (H, W), band_limit, provenance,
                       truth {unit, voxel_size (Å), energy (kV), provenance}
    /patterns          (Ny, Nx, Ky, Kx), counts or electrons, DC at (Ky // 2, Kx // 2)
    /checksums         (Ny, Nx) uint32, CRC-32 of each pattern's bytes; checked whenever a pattern is read
    /positions         (N, 2) float64, Å, (y, x)
    /mask              (Ky, Kx) float32
    /probe             (M, Ky, Kx) complex64, centred
    /truth             (D, H, W) float32
    /truth_atoms/numbers, positions      (n,), (n, 3) as (z, y, x) in Å
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

from ...files import atomic, guard_hdf5, plain
from ...physics.optics import Optics
from ...specimen.volume import Volume
from ..dataset import Calibration, FourDSTEM, chunks
from .common import Options, ReadError, arrange

FORMAT, VERSION = "mepdiff-4dstem", 1


def save(data: FourDSTEM, path: str | Path, compression: int = 4) -> None:
    """Write a dataset in the project's own layout; the file appears whole or not at all.

    Parameters
    ----------
    compression : int
        gzip level, 0 to 9.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w", libver=("v110", "v110")) as file:
        packed: dict[str, Any] = {"compression": "gzip", "compression_opts": compression, "shuffle": True} if (
            compression) else {}
        rows = tuple(c[0] for c in data.data.chunks)
        sums = np.zeros(data.scan_shape, np.uint32)

        def noted(block: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
            (y0, y1), (x0, x1) = block_info[0]["array-location"][:2]
            sums[y0:y1, x0:x1] = _crc(block)
            return block

        stored = file.create_dataset(
            "patterns", shape=data.shape, dtype=data.data.dtype, fletcher32=True,
            chunks=(1, min(rows[1], 32), *data.detector_shape), **packed,
        )
        import dask.array as da

        with dask.config.set(scheduler="threads"):
            da.store(data.data.map_blocks(noted, dtype=data.data.dtype, meta=np.empty((0,) * 4, data.data.dtype)),
                     stored, lock=True)
        file.create_dataset("checksums", data=sums)
        header: dict[str, Any] = {
            "calibration": data.calibration.model_dump(mode="json"),
            "optics": None if data.optics is None else data.optics.model_dump(mode="json"),
            "boundary": data.boundary, "canvas": data.canvas, "band_limit": data.band_limit,
            "provenance": data.provenance,
        }
        for name in ("positions", "mask", "probe"):
            if getattr(data, name) is not None:
                file.create_dataset(name, data=getattr(data, name))
        if data.truth is not None:
            file.create_dataset("truth", data=data.truth.array, compression="gzip", shuffle=True)
            t = data.truth
            header["truth"] = {"unit": t.unit, "voxel_size": t.voxel_size, "energy": t.energy, "provenance": t.provenance}
        if data.truth_atoms is not None:
            group = file.create_group("truth_atoms")
            for name, values in data.truth_atoms.items():
                group.create_dataset(name, data=values)
        text = json.dumps(plain(header), default=str, ensure_ascii=False).encode()
        file.create_dataset("header", data=np.frombuffer(text, np.uint8))
        # bytes of fixed length: strings of any length live in a heap that nothing protects
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
        file.attrs["seal"] = np.bytes_(_seal(file))


def _crc(block: NDArray[Any]) -> NDArray[np.uint32]:
    """CRC-32 of each pattern of a block (y, x, Ky, Kx)."""
    out = np.empty(block.shape[:2], np.uint32)
    for y in range(block.shape[0]):
        for x in range(block.shape[1]):
            out[y, x] = zlib.crc32(np.ascontiguousarray(block[y, x]).data)
    return out


def _seal(file: h5py.File) -> str:
    """SHA-256 over attributes and datasets, the patterns by shape, type and their checksums alone."""
    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        for key in sorted(item.attrs):
            if key != "seal":
                value = item.attrs[key]
                digest.update(f"{name}@{key}={value.tolist() if isinstance(value, np.ndarray) else value!r};".encode())
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

    lazy = da.from_array(patterns, chunks=chunks(patterns.shape, patterns.dtype.itemsize), name=False)

    def compare(block: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
        (y0, y1), (x0, x1) = block_info[0]["array-location"][:2]
        wrong = _crc(block) != sums[y0:y1, x0:x1]
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            raise ReadError(f"{name}: {int(wrong.sum())} patterns are damaged, the first at scan position "
                            f"({y0 + y}, {x0 + x})")
        return block

    return lazy.map_blocks(compare, dtype=patterns.dtype, meta=np.empty((0,) * 4, patterns.dtype))


def _consistent(dataset: h5py.Dataset, name: str) -> h5py.Dataset:
    """Refuse a dataset whose stored size does not fit its shape."""
    size = dataset.id.get_storage_size()
    if dataset.chunks is None:
        if size != dataset.size * dataset.dtype.itemsize:
            raise ReadError(f"{name}: '{dataset.name}' says shape {dataset.shape} but holds {size} bytes: damaged")
    else:
        whole = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]))
        if dataset.id.get_num_chunks() != whole:
            raise ReadError(f"{name}: {whole - dataset.id.get_num_chunks()} of {whole} blocks of '{dataset.name}' "
                            "are missing")
    return dataset


def read(path: Path, options: Options) -> FourDSTEM:
    """Any of the layouts above."""
    guard_hdf5(path)
    file = h5py.File(path, "r")  # stays open as long as the lazy patterns live
    mark = mark_of(file)
    if mark == FORMAT:
        return _own(file, path.name)
    if mark is not None:
        raise ReadError(f"{path.name} is marked {mark!r}: no 4D-STEM data")
    if "optimizable_tensors" in file:
        raise ReadError(f"{path.name} is a PtyRAD result, a reconstruction without patterns: open it as a volume")
    if options.dataset is None:
        py4dstem = _find_py4dstem(file)
        if py4dstem is not None:
            return _py4dstem(file, py4dstem, options, path.name)
    return FourDSTEM(arrange(_consistent(_only_dataset(file, options.dataset, path.name), path.name), options, path.name))


def _own(file: h5py.File, name: str) -> FourDSTEM:
    version = int(file.attrs["version"])
    if not 1 <= version <= VERSION:
        raise ReadError(f"{name} has layout version {version}; this napari-mepdiff reads up to {VERSION}: update it")
    for key in ("patterns", "checksums", "header"):
        if key not in file:
            raise ReadError(f"{name} lacks its '{key}'")
    patterns = file["patterns"]
    if patterns.ndim != 4 or patterns.dtype.kind not in "uif":
        raise ReadError(f"{name}: 'patterns' is {patterns.dtype} of shape {patterns.shape}")
    _consistent(patterns, name)
    if _plain_text(file.attrs["seal"]) != _seal(file):
        raise ReadError(f"{name} was damaged or changed after it was written: its seal does not fit")
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
        truth = Volume(file["truth"][...], tuple(t["voxel_size"]), unit=t["unit"], energy=t["energy"],
                       provenance=t["provenance"])
    if "truth_atoms" in file:
        atoms = {k: file["truth_atoms"][k][...] for k in ("numbers", "positions")}
        if atoms["positions"].shape != (len(atoms["numbers"]), 3):
            raise ReadError(f"{name}: atoms and their positions do not fit together")
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


def _find_py4dstem(file: h5py.File) -> h5py.Group | None:
    """The first datacube: a group marked by emdfile's class or by the older EMD types."""
    found: list[h5py.Group] = []

    def visit(_name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and not found and "data" in item and isinstance(item["data"], h5py.Dataset):
            marks = {str(item.attrs.get(k, "")).strip("b'").lower() for k in ("python_class", "emd_group_type")}
            if marks & {"datacube", "array", "1"} and item["data"].ndim == 4:
                found.append(item)

    file.visititems(visit)
    return found[0] if found else None


def _py4dstem(file: h5py.File, group: h5py.Group, options: Options, name: str) -> FourDSTEM:
    numbers: dict[str, Any] = {}

    def visit(path: str, item: Any) -> None:
        if "calibration" in path and isinstance(item, h5py.Dataset) and item.shape == ():
            value = item[()]
            numbers[path.rsplit("/", 1)[-1]] = value.decode() if isinstance(value, bytes) else value

    file.visititems(visit)
    q, units = _positive(numbers.get("Q_pixel_size")), str(numbers.get("Q_pixel_units", "pixels"))
    r, r_units = _positive(numbers.get("R_pixel_size")), str(numbers.get("R_pixel_units", "pixels"))
    fields: dict[str, Any] = {"energy": None}
    if (volts := _positive(numbers.get("accelerating_voltage"))) is not None:
        fields["energy"] = volts / 1e3
    if (angle := _positive(numbers.get("convergence_semiangle_mrad"))) is not None:
        fields["semi_angle"] = angle
    if q is not None and units in ("A^-1", "Å^-1", "1/A"):
        fields["pixel_size"] = q
    step = {"A": 1.0, "Å": 1.0, "nm": 10.0, "pm": 0.01}.get(r_units)
    if r is not None and step is not None:
        fields["scan_step"] = (r * step, r * step)
    calibration = Calibration.model_validate(fields)
    if q is not None and units == "mrad" and calibration.energy is not None:
        calibration = calibration.with_pixel_mrad(q)
    return FourDSTEM(arrange(_consistent(group["data"], name), options, name), calibration,
                     provenance={"py4DSTEM": {k: _text(v) for k, v in numbers.items()}})


def _only_dataset(file: h5py.File, wanted: str | None, name: str) -> h5py.Dataset:
    if wanted is not None:
        if wanted not in file or not isinstance(file[wanted], h5py.Dataset):
            raise ReadError(f"{name} has no dataset {wanted!r}; it has {', '.join(_datasets(file, 1)) or 'none'}")
        return file[wanted]
    for ndim in (4, 3):
        names = _datasets(file, ndim)
        if len(names) == 1:
            return file[names[0]]
        if names:
            raise ReadError(f"{name} holds several arrays that could be the patterns: {', '.join(names)}; name one")
    raise ReadError(f"{name} holds no array of patterns (three or four axes)")


def _datasets(file: h5py.File, least: int) -> list[str]:
    names: list[str] = []
    file.visititems(lambda n, d: names.append(n) if isinstance(d, h5py.Dataset) and (
        d.ndim == least or (least == 1 and d.ndim >= 3)) and d.dtype.kind in "uif" else None)
    return names


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def _text(value: Any) -> Any:
    return plain(value) if not isinstance(value, bytes) else value.decode(errors="replace")


# ---- PtyRAD results ---------------------------------------------------------------------------------------------
def is_ptyrad_result(path: Path) -> bool:
    """Whether an HDF5 file is a PtyRAD result, by its content."""
    with h5py.File(path, "r") as file:
        return "optimizable_tensors" in file


def read_ptyrad_result(path: str | Path) -> Volume:
    """The phase of a PtyRAD result (``model_iterNNNN.hdf5``) as a Volume in rad.

    Object modes are averaged by their occupancy.

    Raises
    ------
    FileNotFoundError, ReadError
        If there is no such file, or it is no whole PtyRAD result.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        guard_hdf5(path)
        with h5py.File(path, "r") as file:
            tensors, attributes = file["optimizable_tensors"], file.get("model_attributes", {})
            phase = np.asarray(tensors["objp"][...], dtype=np.float32)
            if phase.ndim != 4:
                raise ReadError(f"{path.name}: the object has shape {phase.shape}, not (modes, z, y, x)")
            share = _number(attributes, "omode_occu")
            weights = np.ones(phase.shape[0]) / phase.shape[0] if share is None or share.size != phase.shape[0] else share
            dx, dz = _number(attributes, "dx"), _number(attributes, "slice_thickness")
            if dz is None and "slice_thickness" in tensors:
                dz = np.asarray(tensors["slice_thickness"][...], dtype=float).ravel()
            if dx is None or dz is None:
                raise ReadError(f"{path.name} does not say its pixel size (dx) and slice thickness")
            array = np.tensordot(weights.ravel() / weights.sum(), phase, axes=1)
            lam = _number(attributes, "lambd")
            return Volume(array, (float(dz.mean()), float(dx.flat[0]), float(dx.flat[0])),
                          provenance={"made_by": "PtyRAD", "file": path.name,
                                      "wavelength": None if lam is None else float(lam.flat[0])})
    except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path.name} is no whole PtyRAD result: {error}") from error


def ptyrad_probe(path: Path) -> NDArray[np.complex64]:
    """The probe (modes, Ky, Kx) of a PtyRAD result; stored complex or as (…, 2) floats."""
    with h5py.File(path, "r") as file:
        probe = file["optimizable_tensors"]["probe"][...]
    if not np.iscomplexobj(probe):
        probe = probe[..., 0] + 1j * probe[..., 1]
    return probe.astype(np.complex64)


def _number(group: Any, key: str) -> NDArray[np.float64] | None:
    if key not in group:
        return None
    value = group[key][()]
    if isinstance(value, (bytes, str)):  # "__NONE__"
        return None
    return np.asarray(value, dtype=float)
