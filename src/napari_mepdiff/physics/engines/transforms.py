"""Fourier transforms of blocks of waves on one core: FFTW where it is installed, else SciPy.

Neither normalises. FFTW's measured plans take about half of SciPy's time, and differ from it in the
last bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...base.extras import available, require
from . import wisdom

logger = logging.getLogger(__name__)
Wave = NDArray[np.complex64]


class Transform(Protocol):
    """From one buffer to another, or in place; the first is free to be overwritten."""

    def execute(self) -> Any: ...


class SciPyTransform:
    """The two-dimensional transform over the last two axes."""

    def __init__(self, source: Wave, target: Wave, *, inverse: bool = False) -> None:
        from scipy import fft

        self._source, self._target = source, target
        self._transform: Callable[..., Wave] = fft.ifft2 if inverse else fft.fft2
        self._norm = "forward" if inverse else "backward"  # the one that scales nothing

    def execute(self) -> None:
        """Transform what the source holds now."""
        self._target[...] = self._transform(self._source, norm=self._norm, overwrite_x=True)


@cache
def fftw_there() -> bool:
    """Whether FFTW does the transforms; where it does not, the log says so once."""
    if available("pyfftw"):
        require("pyfftw", "fast", "Transforms by FFTW")  # installed and broken is an error
        return True
    logger.warning(
        "FFTW is not installed: on the CPU, transforms run through SciPy and take about "
        "twice as long. "
        'pip install "napari-mepdiff[fast]" brings it.'
    )
    return False


def buffer(shape: tuple[int, ...]) -> Wave:
    """Zeros, where FFTW likes them in memory."""
    if fftw_there():
        import pyfftw

        zeros: Wave = pyfftw.zeros_aligned(shape, dtype="complex64")
        return zeros
    return np.zeros(shape, np.complex64)


def plan(work: Wave, into: Wave) -> tuple[Transform, Transform, list[Transform]]:
    """Forward and inverse in place on `work`, and the inverse of `work` into each of `into`.

    Not to be called from two threads at a time: FFTW's planner allows one.
    """
    if not fftw_there():
        return (
            SciPyTransform(work, work),
            SciPyTransform(work, work, inverse=True),
            [SciPyTransform(work, one, inverse=True) for one in into],
        )
    import pyfftw

    options: dict[str, Any] = {"axes": (2, 3), "flags": ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")}
    known = wisdom.recall()
    forward = pyfftw.FFTW(work, work, **options)
    inverse = pyfftw.FFTW(work, work, direction="FFTW_BACKWARD", **options)
    each = [pyfftw.FFTW(work, one, direction="FFTW_BACKWARD", **options) for one in into]
    wisdom.keep(known)
    return forward, inverse, each


def plan_forward(work: Wave) -> Transform:
    """The forward transform alone, in place on `work`, as in :func:`plan`."""
    if not fftw_there():
        return SciPyTransform(work, work)
    import pyfftw

    known = wisdom.recall()
    forward: Transform = pyfftw.FFTW(
        work, work, axes=(2, 3), flags=("FFTW_MEASURE", "FFTW_DESTROY_INPUT")
    )
    wisdom.keep(known)
    return forward
