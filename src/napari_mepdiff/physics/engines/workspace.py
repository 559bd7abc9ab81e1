"""Buffers of one thread of the CPU engine, and the plans of their transforms."""

from __future__ import annotations

import functools
import threading

import numpy as np
from numpy.typing import NDArray

from . import transforms
from .transforms import Transform

_PLAN_LOCK = threading.Lock()  # FFTW plans one at a time


class Workspace:
    """One thread's buffers and plans for a block of B positions.

    Attributes
    ----------
    before : ndarray
        Waves before each slice, (D, B, M, Ky, Kx).
    work : ndarray
        The waves on their way, (B, M, Ky, Kx).
    forward, inverse : Transform
        In place on `work`.
    into : list of D transforms
        Inverse, out of `work` into before[s].
    pixels : ndarray
        (3, Ky, Kx): intensities, then ∂L/∂I; scratch for the logarithm; counts.
    """

    def __init__(self, slices: int, shape: tuple[int, int, int, int]) -> None:
        with _PLAN_LOCK:
            self.before: NDArray[np.complex64] = transforms.buffer((slices, *shape))
            self.work: NDArray[np.complex64] = transforms.buffer(shape)
            self.forward, self.inverse, self.into = transforms.plan(self.work, self.before)
        self.pixels = np.empty((3, *shape[2:]), np.float32)

    @functools.cached_property
    def second(self) -> tuple[NDArray[np.complex64], Transform]:
        """A second block of waves and its forward transform, for the gradients by the gaps."""
        with _PLAN_LOCK:
            waves = transforms.buffer(self.work.shape)
            return waves, transforms.plan_forward(waves)
