"""Files that appear whole or not at all, and fingerprints of what was read."""

from __future__ import annotations

import hashlib
import os
import platform
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
