"""Fingerprints of what a run is made from besides its measurement: a volume, a network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..base.records import fingerprint
from ..reconstruction.settings import SolverSettings


def prior_fingerprint(settings: SolverSettings) -> str | None:
    """Of the weights of the network that a solver uses; None where there are none."""
    from ..prior.files import CHECKPOINT, bundled

    name = getattr(settings, "prior", None)
    if not isinstance(name, str):
        return None
    shipped, path = bundled(), Path(name)
    if not path.suffix and not path.exists() and name in shipped:
        return f"sha256:{shipped[name]}"
    path = path / CHECKPOINT if path.is_dir() else path
    return fingerprint(path) if path.exists() else None


def fingerprint_of(array: NDArray[np.float32]) -> str:
    """SHA-256 of a volume's values (float32) and shape."""
    whole = np.ascontiguousarray(array, np.float32)
    digest = hashlib.sha256(f"{whole.shape}".encode())
    digest.update(whole.tobytes())
    return digest.hexdigest()
