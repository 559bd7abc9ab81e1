"""Open 4D-STEM files. Content tells the format; a name that claims another is an error.

``open_4dstem(path)`` returns a lazy :class:`FourDSTEM`, whatever the format. Formats: the project's
own HDF5, py4DSTEM and other EMD, plain HDF5, npy, MATLAB v5 and v7.3, EMPAD raw, zarr, and through
RosettaSciIO dm3, dm4, mib, blo, hspy, tvips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.extras import MissingExtra
from ...base.hdf5 import NoAnswer
from ...base.records import fingerprint
from ..dataset import DataError, FourDSTEM
from .common import Options, ReadError, arrange

__all__ = ["EXTENSIONS", "Options", "ReadError", "arrange", "open_4dstem", "sniff"]

_HDF5 = b"\x89HDF\r\n\x1a\n"

EXTENSIONS = {
    ".h5": "hdf5", ".hdf5": "hdf5", ".emd": "hdf5", ".npy": "npy", ".mat": "mat", ".raw": "empad",
    ".zarr": "zarr", ".dm3": "dm", ".dm4": "dm", ".mib": "mib", ".hdr": "mib", ".blo": "blo",
    ".hspy": "hspy", ".tvips": "tvips",
}  # fmt: skip


def sniff(path: Path) -> str | None:
    """Format by content: 'hdf5', 'npy', 'mat5', 'dm', 'mib', 'blo', 'zarr'.

    None where the content does not tell.
    """
    if path.is_dir():
        return (
            "zarr"
            if any((path / n).exists() for n in (".zarray", ".zgroup", "zarr.json"))
            else None
        )
    with open(path, "rb") as handle:
        head = handle.read(1024)
    if head.startswith(_HDF5) or head[512:520] == _HDF5:
        return "hdf5"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"MATLAB 5.0"):
        return "mat5"
    if head[:4] in (b"\0\0\0\x03", b"\0\0\0\x04"):
        return "dm"
    if head.startswith(b"MQ1,"):
        return "mib"
    if head[:6] in (b"IMGBLO", b"ALGBLO"):
        return "blo"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    return None


def open_4dstem(
    path: str | Path,
    *,
    dataset: str | None = None,
    scan_shape: tuple[int, int] | None = None,
    axes: str | None = None,
    calibration: dict[str, Any] | None = None,
    hash_input: bool = True,
    truth: bool = True,
) -> FourDSTEM:
    """Open a 4D-STEM file; the patterns stay on disk.

    Parameters
    ----------
    path : str or Path
    dataset : str, optional
        Which dataset of a file that holds several.
    scan_shape : (Ny, Nx), optional
        For files that hold a plain list of patterns.
    axes : str, optional
        Order of the stored axes: y, x the scan, u, v the detector rows and columns, n a list of
        patterns. 'yxuv' for four axes and 'nuv' for three unless told.
    calibration : dict, optional
        Fields of :class:`~napari_mepdiff.measurement.calibration.Calibration` that override what
        the file says.
    hash_input : bool
        Put the file's fingerprint into the provenance.
    truth : bool
        Keep what only a simulation knows (specimen, atoms, what the instrument did); False gives
        the measurement as a microscope would.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ReadError
        If the file is damaged, mislabelled, or does not hold 4D-STEM data; the message says which.
    NoAnswer
        If the drive does not answer in time.
    MissingExtra
        If the format needs a package that is not installed; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    options = Options(dataset=dataset, scan_shape=scan_shape, axes=axes)
    found, claimed = sniff(path), EXTENSIONS.get(path.suffix.lower())
    kind = _resolve(path, found, claimed)
    reader = _reader(kind)
    try:
        data = reader(path, options)
    except (ReadError, FileNotFoundError, NoAnswer, MissingExtra):
        raise
    except MemoryError as error:
        raise ReadError(
            f"{path.name} claims a size that does not fit in memory; it is damaged or very large"
        ) from error
    except Exception as error:  # damaged files make readers raise anything
        raise ReadError(
            f"{path.name} cannot be read as {kind}: {_short(error)}; it is damaged or not what it "
            "claims to be"
        ) from error
    if not truth:
        data = data.without_truth()
    source: dict[str, Any] = {"file": path.name, "format": kind}
    if calibration:
        before = data.provenance
        data = data.calibrated(**calibration)
        if data.provenance is not before:  # part of how the file was opened, not a later step
            source["positions"] = data.provenance["steps"][-1]
            data = replace(data, provenance=before)
    if hash_input:
        source["hash"] = fingerprint(path)
    return replace(data, provenance={**data.provenance, "source": source})


def _resolve(path: Path, found: str | None, claimed: str | None) -> str:
    same: dict[str, Sequence[str]] = {
        "hdf5": ("hdf5", "hspy", "mat"), "npy": ("npy",), "mat5": ("mat",), "dm": ("dm",),
        "mib": ("mib",), "blo": ("blo",), "zarr": ("zarr",), "zip": (),
    }  # fmt: skip
    if found is not None and claimed is not None and claimed not in same[found]:
        if found == "mat5":
            found = "MATLAB 5"
        raise ReadError(
            f"{path.name} is named like {claimed} data but contains {found} data: rename it"
        )
    if claimed == "mat" and found == "hdf5":
        return "mat73"
    kind = claimed if claimed in ("hspy", "tvips") else (found or claimed)
    if kind is None or kind == "zip":
        raise ReadError(
            f"{path.name}: neither name nor content tell a format that can be read here "
            f"({', '.join(sorted(EXTENSIONS))})"
        )
    if found is None and claimed not in ("empad", "tvips", "mib"):
        raise ReadError(
            f"{path.name} does not begin like a {claimed} file: it is damaged, empty or mislabelled"
        )
    return kind


def _reader(kind: str) -> Callable[[Path, Options], FourDSTEM]:
    from . import empad, hdf5, plain, rosetta

    table: dict[str, Callable[[Path, Options], FourDSTEM]] = {
        "hdf5": hdf5.read, "npy": plain.read_npy, "mat5": plain.read_mat5, "mat": plain.read_mat5,
        "mat73": plain.read_mat73, "empad": empad.read, "zarr": plain.read_zarr,
    }  # fmt: skip
    return table.get(kind, rosetta.read)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:297] + "…"


def load_probe(path: str | Path) -> NDArray[np.complex64]:
    """A complex probe (M, Ky, Kx) from npy or from a PtyRAD result.

    Raises
    ------
    ReadError
        If the file holds none.
    """
    path = Path(path)
    try:
        if sniff(path) == "npy":
            probe: NDArray[Any] = np.load(path, allow_pickle=False)
        else:
            from .ptyrad import ptyrad_probe

            probe = ptyrad_probe(path)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ReadError(f"{path.name} holds no probe: {_short(error)}") from error
    probe = probe if probe.ndim == 3 else probe[None]
    if (
        probe.ndim != 3
        or not np.iscomplexobj(probe)
        or not math.isfinite(float(np.abs(probe).sum()))
    ):
        raise ReadError(f"{path.name} holds no complex, finite probe of shape (modes, Ky, Kx)")
    return probe.astype(np.complex64)


assert issubclass(ReadError, DataError)
