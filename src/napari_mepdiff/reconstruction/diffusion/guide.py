"""What a guide is: how the data change the x-prediction at each noise level, x′ = guide(x_θ).

Each kind stands in a module of its own: :mod:`.newton`, :mod:`.paper`, :mod:`.adam` work through
the network (one vector–Jacobian product), :mod:`.decoupled` asks it nothing but x_θ. All work
sample by sample on latents (K, D, H, W). Whole atoms are in :mod:`..atoms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .data_term import VolumeMisfit

Pullback = Callable[[Tensor], Tensor]  # g ↦ (∂x_θ / ∂z)ᵀ g


@dataclass
class Guided:
    """What a guide returns.

    Attributes
    ----------
    x : Tensor
        x′, (K, D, H, W), scaled.
    misfit : float
        Of x_θ over shot noise, mean over the samples; 1 when it explains the data.
    norm : float
        ‖x′ − x_θ‖ over √voxels, scaled units: how far the data moved it. Of the shift where there
        is one.
    gain : float
        Step along the guidance direction for a factor of 1, mean over the samples.
    shift : Tensor or None
        s, (K, D, H, W), where the guide moves the next latent instead of the prediction:
        z_next = sampler(z, x′) + s α(λ_next) / α(λ).
    """

    x: Tensor
    misfit: float
    norm: float
    gain: float
    shift: Tensor | None = None


class Guide(Protocol):
    """A kind of guidance, with what it remembers from step to step."""

    through_network: bool  # whether it needs the pullback

    def __call__(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        pull: Pullback | None,
        log_snr: float,
        factor: float,
        inner: int = 1,
    ) -> Guided:
        """Guide x_θ at level λ.

        Parameters
        ----------
        likelihood : VolumeMisfit
            Of the positions of this step.
        x : Tensor
            x_θ, (K, D, H, W), scaled.
        pull : callable or None
            g ↦ (∂x_θ / ∂z)ᵀ g, where the guide asked for it.
        log_snr : float
            λ.
        factor : float
            Guidance weight times schedule.
        inner : int
            Steps of a guide that has some of its own.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        ...


def slopes(likelihood: VolumeMisfit, x: Tensor) -> tuple[list[float], Tensor, list[float]]:
    """L, ∂L/∂x (K, D, H, W) and the misfit over shot noise of each sample."""
    found = [likelihood(sample) for sample in x]
    losses, gradients, misfits = zip(*found, strict=True)
    return list(losses), torch.stack(gradients).to(x), list(misfits)


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())


def mean(values: list[float]) -> float:
    """Mean."""
    return sum(values) / len(values)


class Unguided:
    """x′ = x_θ: for whole atoms, which the data move between passes."""

    through_network = False

    def __call__(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        pull: Pullback | None,
        log_snr: float,
        factor: float,
        inner: int = 1,
    ) -> Guided:
        """x_θ as it is, with the misfit of the samples' mean."""
        return Guided(x, likelihood.value(x.mean(dim=0))[1], 0.0, 0.0)

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
