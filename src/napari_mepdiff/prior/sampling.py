"""Samples of the prior, or of the prior given a condition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .condition import Condition
from .model import Prior
from .sampler import Step, dpmpp_2m_sde, levels

__all__ = ["Step", "dpmpp_2m_sde", "levels", "sample"]


def sample(
    prior: Prior, shape: tuple[int, int, int] = (8, 64, 64), *, count: int = 1, steps: int = 100,
    condition: Condition | None = None, seed: int = 0, progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Volumes (count, D, H, W) in rad drawn from the prior, or from the prior given a condition.

    Parameters
    ----------
    shape : (D, H, W)
        Voxels; the condition's if there is one.
    steps : int
        Evaluations of the network.
    """
    if condition is not None:
        shape = tuple(condition.volume.shape)  # type: ignore[assignment]
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, *shape, generator=rng).to(prior.device)
    x = z
    for state in dpmpp_2m_sde(lambda latent, level: prior(latent, level, condition), z, levels(steps), rng):
        x = state.x
        if progress:
            progress(state.step, state.total)
    return x / prior.scale
