"""Files that appear whole or not at all, and fingerprints of what was read."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and goes when it does not.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file; of large ones (> 1 GB) the size and the first and last 64 MB, marked as such."""
    path = Path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(part.relative_to(path)).encode())
            digest.update(fingerprint(part).encode())
        return f"sha256-tree:{digest.hexdigest()}"
    size, chunk = path.stat().st_size, 1 << 26
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        if size <= 1 << 30:
            for block in iter(lambda: handle.read(1 << 20), b""):
                digest.update(block)
            return f"sha256:{digest.hexdigest()}"
        digest.update(str(size).encode() + handle.read(chunk))
        handle.seek(-chunk, os.SEEK_END)
        digest.update(handle.read())
    return f"sha256-ends:{digest.hexdigest()}"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    from . import __version__

    out: dict[str, str] = {"napari-mepdiff": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "abtem", "ptyrad"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def plain(value: Any) -> Any:
    """Numpy scalars, arrays and tuples as JSON has them."""
    import numpy as np

    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value


_PROBE = """
import sys, h5py
with h5py.File(sys.argv[1], "r") as f:
    def look(name, item):
        dict(item.attrs)
        if isinstance(item, h5py.Dataset):
            item.shape, item.dtype, item.chunks, item.id.get_storage_size()
            if item.size < 1024:
                item[()]
    look("/", f)
    f.visititems(look)
"""


def guard_hdf5(path: str | Path, seconds: float = 20.0) -> None:
    """Walk through an HDF5 file in a process of its own, before this one touches it.

    A damaged file can send the HDF5 library round in circles with the interpreter locked; a process can be ended.

    Raises
    ------
    ValueError
        If the walk fails, crashes or does not end.
    """
    path = Path(path)
    try:
        result = subprocess.run([sys.executable, "-c", _PROBE, str(path)], capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path.name} sends the HDF5 library round in circles: it is damaged") from None
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(f"{path.name} cannot be read as HDF5: {lines[-1] if lines else 'the library crashed'}; it is damaged")
