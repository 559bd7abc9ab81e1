"""What an HDF5 file holds, asked so that a damaged one ends nothing.

A damaged file can send the HDF5 library round in circles with the interpreter locked, or crash it:
files from elsewhere are first gone through in a process that can be ended.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

MEASUREMENT, VOLUME = "mepdiff-4dstem", "mepdiff-volume"
Kind = Literal["measurement", "volume", "ptyrad", "other"]
"""Of an HDF5 file: our own 4D-STEM data, our own volume, a PtyRAD result, or anything else."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OURS: dict[str, Kind] = {MEASUREMENT: "measurement", VOLUME: "volume"}


class NoAnswer(TimeoutError):
    """A file was not read through in time; that says nothing about its content."""


def is_hdf5(path: str | Path) -> bool:
    """Whether the file begins like HDF5 (at 0, 512, 1024, 2048 … bytes); reads a few bytes only.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        at = 0
        for _ in range(12):
            handle.seek(at)
            head = handle.read(len(_SIGNATURE))
            if head == _SIGNATURE:
                return True
            if len(head) < len(_SIGNATURE):
                return False
            at = max(512, 2 * at)
    return False


_PROBE = """
import sys, json, h5py
with h5py.File(sys.argv[1], "r") as f:
    def look(name, item):
        dict(item.attrs)
        if isinstance(item, h5py.Dataset):
            item.shape, item.dtype, item.chunks, item.id.get_storage_size()
            if item.size < 1024:
                item[()]
    look("/", f)
    f.visititems(look)
    mark = f.attrs.get("format")
    mark = mark.decode(errors="replace") if isinstance(mark, bytes) else mark
    print(json.dumps({"mark": str(mark), "ptyrad": "optimizable_tensors" in f}))
"""

_known: dict[tuple[str, int, int], Kind] = {}


def guard_hdf5(path: str | Path, seconds: float | None = None) -> Kind:
    """Walk through an HDF5 file in a process of its own, before this one touches it.

    A file that was gone through once and has not changed since is answered from memory.

    Parameters
    ----------
    path : str or Path
    seconds : float, optional
        How long the walk may take; by default 20 s and 1 s more for every 100 MB, or what the
        environment variable ``MEPDIFF_READ_TIMEOUT`` says.

    Returns
    -------
    Kind
        What the file holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    NoAnswer
        If the walk does not end in time: a slow drive or a damaged file, which cannot be told
        apart.
    ValueError
        If the walk fails or crashes: the file is damaged, or no HDF5 file.
    """
    path = Path(path)
    stat = path.stat()
    key = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
    if key in _known:
        return _known[key]
    limit = _limit(stat.st_size) if seconds is None else seconds
    command = [sys.executable, "-c", _PROBE, str(path)]
    try:
        result = subprocess.run(command, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise NoAnswer(
            f"{path.name} did not answer within {limit:g} s: a slow or disconnected drive, or a "
            "damaged file; try again, copy it to a local disk, or allow more seconds with the "
            "environment variable MEPDIFF_READ_TIMEOUT"
        ) from None
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        log.info("%s cannot be read as HDF5: %s", path, lines)
        raise ValueError(
            f"{path.name} cannot be read as HDF5: {lines[-1] if lines else 'the library crashed'}; "
            "it is damaged"
        )
    found = json.loads(result.stdout)
    kind: Kind = "ptyrad" if found["ptyrad"] else _OURS.get(found["mark"], "other")
    if len(_known) > 1000:
        _known.clear()
    _known[key] = kind
    return kind


def _limit(size: int) -> float:
    asked = os.environ.get("MEPDIFF_READ_TIMEOUT", "")
    try:
        return float(asked)
    except ValueError:
        if asked:
            log.warning("MEPDIFF_READ_TIMEOUT is no number of seconds: %r", asked)
        return round(20.0 + size / 100e6)


def kind_of(path: str | Path, seconds: float | None = None) -> Kind | None:
    """What an HDF5 file holds; None if it is no HDF5 file at all.

    Our own files say so in their first bytes and are answered within a millisecond, without a look
    at the rest. For others see :func:`guard_hdf5`, which may take seconds: not for the thread of a
    window.

    Raises
    ------
    NoAnswer, ValueError
        As :func:`guard_hdf5`.
    """
    if not is_hdf5(path):
        return None
    return quick_kind(path) or guard_hdf5(path, seconds)


def quick_kind(path: str | Path) -> Kind | None:
    """What our own files say in their first bytes, without the HDF5 library; None if nothing is
    found there."""
    with open(path, "rb") as handle:
        head = handle.read(1 << 16)
    places = {head.find(mark.encode()): kind for mark, kind in _OURS.items()}
    return min(((at, kind) for at, kind in places.items() if at >= 0), default=(0, None))[1]
