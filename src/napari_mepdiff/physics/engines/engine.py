"""What every engine of the multislice likelihood does; the arithmetic is that of
``multislice.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Sweep(NamedTuple):
    """What one pass over some positions brings."""

    loss: float | Tensor
    """Misfit summed over positions and pixels; a tensor of no dimension where it still lies on a
    GPU."""
    volume: Tensor | None
    """What :meth:`Multislice.volume_gradient` makes the gradient from, (D, Hp, Wp)."""
    waves: Tensor | None
    """Spectra of ∂L/∂ψ₀*, (B, M, Ky, Kx)."""
    gaps: Tensor | None = None
    """What :meth:`.gaps.Gaps.gradients` makes its gradients from, (D − 1, Ky, Kx)."""
    detector: Tensor | None = None
    """∂L by background and blur of the detector, (2,), float64."""


class Engine(Protocol):
    """The forward model and its adjoint over any positions, within a bound of memory."""

    poll: Callable[[], None] | None
    """Asked before each block of positions, in the thread that works on it; it may raise."""

    @property
    def chunk(self) -> int:
        """Positions that go through at once."""
        ...

    def renew_gaps(self) -> None:
        """Take in the model's present propagators; buffers and plans stay."""
        ...

    def patterns(self, canvas: Tensor, spectrum: Tensor, index: NDArray[np.int64]) -> Tensor:
        """Modelled intensities (B, Ky, Kx), DC in the corner, background included."""
        ...

    def sweep(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        *,
        volume: bool = True,
        waves: bool = False,
        gaps: bool = False,
        detector: bool = False,
    ) -> Sweep:
        """Loss, and what the gradients are made from.

        Parameters
        ----------
        canvas : Tensor
            Padded transmission, (D, Hp, Wp).
        spectrum : Tensor
            Fourier transform of the probe, (M, Ky, Kx).
        index : array of int
            Positions to visit, (B,).
        volume, waves, gaps, detector : bool
            What is wanted beside the loss.
        """
        ...
