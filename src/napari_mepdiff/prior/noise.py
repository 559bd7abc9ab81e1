"""The diffusion process in terms of the log signal-to-noise ratio λ (paper, section 3; Kingma and Gao 2023).

    z = α x + σ ε,   α² = sigmoid(λ),   σ² = sigmoid(−λ),   v = α ε − σ x

x here is the scaled volume, c times the phase in rad.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

SCALE = 25.0  # c: brings the standard deviation of a volume in rad to about 1 (paper, section 3)
LOW, HIGH = -20.0, 20.0  # λ_1 and λ_0 (paper, table 3)
MEAN, SPREAD = -7.0, 3.0  # of the weighting (paper, table 3)


def _like(log_snr: Tensor | float, z: Tensor) -> Tensor:
    """λ as a tensor that broadcasts against (B, D, H, W) or (D, H, W)."""
    value = torch.as_tensor(log_snr, dtype=z.dtype, device=z.device)
    return value.reshape(value.shape + (1,) * (z.ndim - value.ndim)) if value.ndim else value


def alpha_sigma(log_snr: Tensor | float) -> tuple[Tensor, Tensor]:
    """α and σ of λ."""
    value = torch.as_tensor(log_snr)
    value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    return torch.sigmoid(value).sqrt(), torch.sigmoid(-value).sqrt()


def diffuse(x: Tensor, noise: Tensor, log_snr: Tensor | float) -> Tensor:
    """z = α x + σ ε."""
    alpha, sigma = alpha_sigma(_like(log_snr, x))
    return alpha * x + sigma * noise


def velocity(x: Tensor, noise: Tensor, log_snr: Tensor | float) -> Tensor:
    """v = α ε − σ x (Salimans and Ho 2022)."""
    alpha, sigma = alpha_sigma(_like(log_snr, x))
    return alpha * noise - sigma * x


def x_from_v(z: Tensor, v: Tensor, log_snr: Tensor | float) -> Tensor:
    """x = α z − σ v."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return alpha * z - sigma * v


def noise_from_v(z: Tensor, v: Tensor, log_snr: Tensor | float) -> Tensor:
    """ε = σ z + α v."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return sigma * z + alpha * v


def v_from_x(z: Tensor, x: Tensor, log_snr: Tensor | float) -> Tensor:
    """v = (α z − x) / σ."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return (alpha * z - x) / sigma


def v_from_noise(z: Tensor, noise: Tensor, log_snr: Tensor | float) -> Tensor:
    """v = (ε − σ z) / α."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return (noise - sigma * z) / alpha


def x_from_noise(z: Tensor, noise: Tensor, log_snr: Tensor | float) -> Tensor:
    """x = (z − σ ε) / α."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return (z - sigma * noise) / alpha


def noise_from_x(z: Tensor, x: Tensor, log_snr: Tensor | float) -> Tensor:
    """ε = (z − α x) / σ."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return (z - alpha * x) / sigma


def score_from_v(z: Tensor, v: Tensor, log_snr: Tensor | float) -> Tensor:
    """∇ log q(z) = −z − (α / σ) v (paper, section 2)."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return -z - alpha / sigma * v


def score_from_x(z: Tensor, x: Tensor, log_snr: Tensor | float) -> Tensor:
    """∇ log q(z) = −(z − α x) / σ²."""
    alpha, sigma = alpha_sigma(_like(log_snr, z))
    return -(z - alpha * x) / sigma**2


def score_from_noise(z: Tensor, noise: Tensor, log_snr: Tensor | float) -> Tensor:
    """∇ log q(z) = −ε / σ."""
    _, sigma = alpha_sigma(_like(log_snr, z))
    return -noise / sigma


def weighting(log_snr: Tensor, mean: float = MEAN, spread: float = SPREAD) -> Tensor:
    """w(λ) = N(λ; −7, 3) / Z, Z so that it integrates to 1 over [λ_1, λ_0] (paper, section 3 and table 3)."""
    normal = torch.distributions.Normal(mean, spread)
    inside = normal.cdf(torch.tensor(HIGH)) - normal.cdf(torch.tensor(LOW))
    return normal.log_prob(log_snr).exp() / inside


class AdaptiveSchedule:
    """Draws λ where the weighted loss is large (Kingma and Gao 2023, appendix F): the objective stays, its variance falls.

    The density over [λ_1, λ_0] is piecewise constant on equal bins, proportional to a moving average of w(λ) · loss(λ), and never
    less than a small share of the weighting's own.

    Parameters
    ----------
    bins : int
    decay : float
        Of the moving average, per draw that falls into a bin.
    mean, spread : float
        Of the weighting.
    """

    def __init__(self, bins: int = 80, decay: float = 0.995, mean: float = MEAN, spread: float = SPREAD) -> None:
        self.edges = torch.linspace(LOW, HIGH, bins + 1)
        self.width = (HIGH - LOW) / bins
        self.decay, self.mean, self.spread = decay, mean, spread
        self.weight = weighting((self.edges[1:] + self.edges[:-1]) / 2, mean, spread)
        self.average = torch.ones(bins)  # of the plain loss per bin

    def density(self) -> Tensor:
        """Probability of each bin, (bins,); sums to 1."""
        product = self.weight * self.average.clamp_min(1e-6)
        own = self.weight / self.weight.sum()
        return 0.9 * product / product.sum() + 0.1 * own

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """λ (count,) and the factors w(λ) / p(λ) that keep the objective ∫ w(λ) loss(λ) dλ, (count,).

        The draws are stratified: one in each equal share of the probability.
        """
        density = self.density()
        cumulative = density.cumsum(0)
        u = (torch.arange(count) + torch.rand(count, generator=rng)) / count * cumulative[-1]
        which = torch.searchsorted(cumulative, u).clamp_max(len(density) - 1)
        log_snr = self.edges[which] + self.width * torch.rand(count, generator=rng)
        factor = weighting(log_snr, self.mean, self.spread) * self.width / density[which]
        return log_snr, factor

    def update(self, log_snr: Tensor, loss: Tensor) -> None:
        """Learn from the losses (n,) of draws at λ (n,). Values that are not finite are ignored."""
        which = ((log_snr - LOW) / self.width).long().clamp(0, len(self.average) - 1)
        for index, value in zip(which.tolist(), loss.tolist(), strict=True):
            if np.isfinite(value):
                self.average[index] = self.decay * self.average[index] + (1 - self.decay) * value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"average": self.average.clone(), "decay": self.decay, "mean": self.mean, "spread": self.spread}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.__init__(len(state["average"]), state["decay"], state["mean"], state["spread"])  # type: ignore[misc]
        self.average = state["average"].clone()
