"""Patterns read once and kept once: the one pass over a measurement, and the array it leaves.

All datasets and problems with the same patterns share one :class:`Reading`, whatever their
calibration. It keeps the summary of the first pass, and knows the loaded array as long as somebody
uses it, so that a second run on the same data costs neither a second pass nor a second copy.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

Progress = Callable[[float], None]  # given the fraction done; may raise to end the work

SAMPLE_BYTES = 16 * 1024**2  # of patterns that the summary keeps
BLOCKS_AT_ONCE = 16


@dataclass(frozen=True)
class Summary:
    """One pass over the data.

    Attributes
    ----------
    pacbed : ndarray
        Position-averaged pattern, (Ky, Kx), float64.
    total : ndarray
        Sum of each pattern, (Ny, Nx).
    minimum, maximum : float
        Over all finite pixels.
    bad : ndarray
        (Ky, Kx): in how many patterns a pixel is NaN or infinite (0 in the images).
    top : ndarray
        (Ky, Kx): in how many patterns a pixel holds the largest value of all; integers only.
    sample : ndarray
        (S, Ky, Kx): patterns from all over the scan, as stored.
    """

    pacbed: NDArray[np.float64]
    total: NDArray[np.float64]
    minimum: float
    maximum: float
    bad: NDArray[np.int64]
    top: NDArray[np.int64]
    sample: NDArray[Any]

    @property
    def not_finite(self) -> int:
        """Pixels of all patterns that are NaN or infinite."""
        return int(self.bad.sum())


class Reading:
    """The patterns behind a dataset.

    Parameters
    ----------
    array : dask array
        (Ny, Nx, Ky, Kx), whole patterns in each block.
    memory : ndarray, optional
        The same patterns, where they are in memory already.
    """

    def __init__(self, array: Any, memory: NDArray[Any] | None = None) -> None:
        self.array = array
        self._memory: NDArray[Any] | None = None
        if memory is not None and memory.flags.c_contiguous and kept_type(memory) == memory.dtype:
            self._memory = memory
        self._loaded: weakref.ref[NDArray[Any]] | None = None
        self._summary: Summary | None = None
        self.faulty: Any = None  # kept by `values.faulty_in`
        self._lock = threading.RLock()  # two runs that begin together read once

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, Ky, Kx)."""
        ny, nx, ky, kx = self.array.shape
        return ny * nx, ky, kx

    @property
    def nbytes(self) -> int:
        """Of the loaded patterns."""
        return int(np.prod(self.shape)) * kept_type(self.array).itemsize

    def adopt(self, summary: Summary | None) -> None:
        """Take over a summary of the same patterns."""
        self._summary = self._summary or summary

    @property
    def seen(self) -> Summary | None:
        """The summary, if there has been a pass."""
        return self._summary

    def summary(self, progress: Progress | None = None) -> Summary:
        """Summary of all patterns; the pass is made when it is first asked for."""
        with self._lock:
            if self._summary is None:
                self._summary = self._pass(None, progress)
            return self._summary

    def counts(self, progress: Progress | None = None) -> NDArray[Any]:
        """All patterns in memory, (N, Ky, Kx): bytes, 16-bit integers or float32, as they come.

        One array for all that ask; do not write to it. The same pass makes the summary.
        """
        with self._lock:
            if self._memory is not None:
                return self._memory.reshape(self.shape)
            out = None if self._loaded is None else self._loaded()
            if out is None:
                out = np.empty(self.shape, kept_type(self.array))
                seen = self._pass(out.reshape(self.array.shape), progress)
                self._summary = self._summary or seen
                self._loaded = weakref.ref(out)
            return out

    def _pass(self, out: NDArray[Any] | None, progress: Progress | None) -> Summary:
        """Read every block once; fill `out` (Ny, Nx, Ky, Kx) on the way."""
        array = self.array
        ny, nx, *detector = array.shape
        total, pacbed = np.empty((ny, nx)), np.zeros(detector)
        bad, top = np.zeros(detector, np.int64), np.zeros(detector, np.int64)
        low, high = np.inf, -np.inf
        sample: list[NDArray[Any]] = []
        rows, cols = (np.concatenate([[0], np.cumsum(parts)]) for parts in array.chunks[:2])
        wanted = _spread(array)
        work = []
        for (i, j, _, _), block in np.ndenumerate(array.to_delayed()):
            here = slice(rows[i], rows[i + 1]), slice(cols[j], cols[j + 1])
            target = None if out is None else out[here]
            work.append((here, delayed(_look)(block, target, wanted[here])))
        for start in range(0, len(work), BLOCKS_AT_ONCE):
            places, jobs = zip(*work[start : start + BLOCKS_AT_ONCE], strict=True)
            for place, part in zip(places, compute(*jobs, scheduler="threads"), strict=True):
                total[place] = part.total
                pacbed += part.pacbed
                low = min(low, part.minimum)
                bad += part.bad
                if part.maximum > high:
                    high, top[:] = part.maximum, 0
                if part.maximum == high:
                    top += part.top
                sample.append(part.sample)
            if progress is not None:
                progress(min(1.0, (start + BLOCKS_AT_ONCE) / len(work)))
        few = np.concatenate(sample)
        return Summary(pacbed / (ny * nx), total, float(low), float(high), bad, top, few)


def kept_type(array: Any) -> np.dtype[Any]:
    """The type in which patterns are kept in memory: small counts as they are, else float32."""
    dtype: np.dtype[Any] = np.dtype(array.dtype)
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("=")
    return np.dtype(np.float32)


def _spread(array: Any) -> NDArray[np.bool_]:
    """Positions (Ny, Nx), evenly over the scan, whose patterns make the sample."""
    ny, nx, ky, kx = array.shape
    count = min(ny * nx, max(32, SAMPLE_BYTES // (ky * kx * array.dtype.itemsize)))
    marks = np.zeros(ny * nx, bool)
    marks[np.linspace(0, ny * nx - 1, count).astype(int)] = True
    return marks.reshape(ny, nx)


def _look(block: NDArray[Any], target: NDArray[Any] | None, wanted: NDArray[np.bool_]) -> Summary:
    """Summary of one block (sums where the whole has means); a copy of it into `target`."""
    if target is not None:
        target[...] = block
    bad = top = np.zeros((), np.int64)
    picked = block[wanted]
    kind = block.dtype.kind
    if kind == "f":
        finite = np.isfinite(block)
        if not finite.all():
            bad = (~finite).sum(axis=(0, 1))
            block = np.where(finite, block, 0)
    largest = block.max()
    if kind != "f":
        flat = block.reshape(-1, block.shape[2] * block.shape[3])
        at = np.flatnonzero(flat == largest) % flat.shape[1]
        top = np.bincount(at, minlength=flat.shape[1]).reshape(block.shape[2:])
    wide = np.uint64 if kind == "u" else np.int64 if kind == "i" else np.float64
    return Summary(
        block.sum(axis=(0, 1), dtype=wide).astype(np.float64),
        block.sum(axis=(2, 3), dtype=wide).astype(np.float64),
        float(block.min()),
        float(largest),
        bad,
        top,
        picked,
    )
