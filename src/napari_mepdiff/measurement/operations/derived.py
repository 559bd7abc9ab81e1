"""A dataset made from another: with other patterns, and one more step in its provenance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..blocks import chunks
from ..measured import Measured

Data = TypeVar("Data", bound=Measured)


def changed(self: Data, data: Any, step: str, **fields: Any) -> Data:
    """With other patterns, in blocks of the usual size."""
    if data.shape != self.shape:
        data = data.rechunk(chunks(data.shape, data.dtype.itemsize))
    return noted(replace(self, data=data, **fields), step)


def noted(self: Data, step: str) -> Data:
    """With one more step in the provenance."""
    steps = [*self.provenance.get("steps", []), step]
    return replace(self, provenance={**self.provenance, "steps": steps})


def summable(data: Any, factor: int) -> Any:
    """In a type that holds the sum of factor × factor values."""
    kind, size = data.dtype.kind, data.dtype.itemsize
    if kind == "u":
        fits = size <= 2 and factor**2 * (2 ** (8 * size) - 1) < 2**32
        return data.astype(np.uint32 if fits else np.uint64)
    if kind == "i":
        return data.astype(np.int64)
    return data.astype(np.float64 if size > 4 else np.float32)
