"""Samples of the prior by the sampler of the paper: SDE-DPM-Solver++(2M) on levels linear in λ (section 3, table 4).

In half log-SNR l = λ / 2 = log(α / σ) and with h = l_next − l (Lu et al. 2022, DPM-Solver++, section 5):

    z_next = (σ_next / σ) e^(−h) z + α_next (1 − e^(−2h)) D + σ_next √(1 − e^(−2h)) ε
    D = x + (x − x_before) / 2r,   r = h_before / h
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .condition import Condition
from .model import Prior
from .noise import alpha_sigma

Denoiser = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Step:
    """One step of a sampler: the level λ, the latent z before it and the x-prediction there, both scaled."""

    step: int
    total: int
    log_snr: float
    z: Tensor
    x: Tensor


def levels(steps: int, sigma_max: float = 800.0, sigma_min: float = 0.1) -> list[float]:
    """λ of each step, from −2 ln σ_max to −2 ln σ_min, linear (paper: poly-exponential with ρ = 1).

    Raises
    ------
    ValueError
        If there are fewer than two steps or the σ are not in order.
    """
    if steps < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"a schedule needs two steps or more and σ_max > σ_min > 0, got {steps}, {sigma_max}, {sigma_min}")
    high, low = -2 * math.log(sigma_min), -2 * math.log(sigma_max)
    return [low + (high - low) * n / (steps - 1) for n in range(steps)]


def dpmpp_2m_sde(denoise: Denoiser, z: Tensor, log_snr: list[float], rng: torch.Generator, eta: float = 1.0) -> Iterator[Step]:
    """The sampler over any x-prediction; the last step's x is the sample.

    Parameters
    ----------
    denoise : callable
        (z, λ) -> x.
    z : Tensor
        Latent at the first level; noise of unit variance where that is noisy enough.
    log_snr : list of float
        Levels λ, rising.
    rng : torch.Generator
        On the CPU, of the noise that is added.
    eta : float
        1: the SDE of the paper; 0: the ODE (DPM-Solver++(2M)).
    """
    before: Tensor | None = None
    h_before = 0.0
    for n, level in enumerate(log_snr):
        x = denoise(z, level)
        yield Step(n + 1, len(log_snr), level, z, x)
        if n + 1 == len(log_snr):
            return
        following = log_snr[n + 1]
        h = (following - level) / 2
        (_, sigma), (alpha_next, sigma_next) = (
            (float(a), float(b)) for a, b in (alpha_sigma(torch.tensor(v, dtype=torch.float64)) for v in (level, following)))
        # e^(−2h) of the SDE; without noise (η = 0) the exponent is h alone
        gained = -math.expm1(-h * (1 + eta))
        direction = x if before is None else x + (x - before) * (h / (2 * h_before))
        z = sigma_next / sigma * math.exp(-eta * h) * z + alpha_next * gained * direction
        if eta:
            fresh = torch.randn(z.shape, generator=rng, dtype=z.dtype).to(z.device)
            z = z + sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * fresh
        before, h_before = x, h


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
