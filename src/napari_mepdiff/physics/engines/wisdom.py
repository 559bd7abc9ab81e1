"""FFTW's measured plans, kept between processes.

A measured plan is the fastest, but which one wins depends on the moment, and two plans differ in
the last bit. Kept on disk, the first choice holds on this machine, so that a resumed or replayed
run repeats bit for bit.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ...base.files import atomic
from ...base.folders import cache_folder


def path() -> Path:
    """Where the plans are kept: the user's cache folder."""
    return cache_folder() / "fftw-wisdom"


def recall() -> bytes:
    """Take in the plans on disk, if there are any; returns all single-precision plans now known."""
    import pyfftw

    with contextlib.suppress(OSError):
        pyfftw.import_wisdom((b"", path().read_bytes(), b""))
    return pyfftw.export_wisdom()[1]


def keep(known: bytes) -> None:
    """Write the plans to disk if there are more than the `known` ones. A cache that cannot be
    written is done without."""
    import pyfftw

    now = pyfftw.export_wisdom()[1]
    if now != known:
        with contextlib.suppress(OSError):
            path().parent.mkdir(parents=True, exist_ok=True)
            with atomic(path()) as temporary:
                temporary.write_bytes(now)
