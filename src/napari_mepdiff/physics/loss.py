"""What solvers ask of the physics: a loss and its gradient, over any batch of positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = Sequence[int] | NDArray[np.int64] | Tensor | None


class LikelihoodFunction(Protocol):
    """What solvers need; :class:`.likelihood.Likelihood` and the PtyRAD engine both are one."""

    shape: tuple[int, int, int]
    count: int
    device: torch.device
    real_dtype: torch.dtype
    poll: Callable[[], None] | None
    """Asked before each block of positions, from any thread; what it raises ends the evaluation."""

    def __call__(self, volume: Tensor, batch: Batch = None) -> tuple[float, Tensor]:
        """Loss and gradient of the misfit summed over the positions of `batch` (all if None)."""
        ...

    @property
    def mean_pattern(self) -> NDArray[np.float64]:
        """Mean of all measured patterns, (Ky, Kx), electrons, DC at the centre."""
        ...

    @property
    def weight(self) -> Tensor:
        """Detector weights in use, (Ky, Kx), DC at the centre."""
        ...


@dataclass(frozen=True)
class Gradients:
    """Loss and the gradients that were asked for.

    Attributes
    ----------
    loss : float
        Misfit summed over the batch.
    volume : Tensor or None
        ∂L/∂x, (D, H, W), per rad.
    probe : Tensor or None
        ∂L/∂Re P + i ∂L/∂Im P, (M, Ky, Kx), centred like the probe.
    positions : Tensor or None
        ∂L/∂(y, x), (B, 2), per Å.
    thickness : Tensor or None
        ∂L/∂t of each gap between slices, (D − 1,), per Å, float64 on the CPU. For one thickness of
        all, their sum.
    tilt : Tensor or None
        ∂L/∂(θy, θx) of the beam, (2,), per mrad, float64 on the CPU.
    background, blur : float or None
        ∂L by the detector's background, per electron per pixel, and by its blur, per pixel.
    """

    loss: float
    volume: Tensor | None
    probe: Tensor | None
    positions: Tensor | None
    thickness: Tensor | None = None
    tilt: Tensor | None = None
    background: float | None = None
    blur: float | None = None
