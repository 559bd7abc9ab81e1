"""What a record says of its surroundings: fingerprints of files, versions, values as JSON has
them."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

_WHOLE = 1 << 30  # bytes; larger files are known by their size and ends
_END = 1 << 26


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file or a folder of files.

    Of a file above 1 GB: of its size and its first and last 64 MB, marked as such.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(part.relative_to(path)).encode())
            digest.update(fingerprint(part).encode())
        return f"sha256-tree:{digest.hexdigest()}"
    size = path.stat().st_size
    with open(path, "rb") as handle:
        if size <= _WHOLE:
            for block in iter(lambda: handle.read(1 << 20), b""):
                digest.update(block)
            return f"sha256:{digest.hexdigest()}"
        digest.update(str(size).encode() + handle.read(_END))
        handle.seek(-_END, os.SEEK_END)
        digest.update(handle.read())
    return f"sha256-ends:{digest.hexdigest()}"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__

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
