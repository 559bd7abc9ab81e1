"""The diffusion process in terms of the log signal-to-noise ratio λ (paper, section 3; Kingma and
Gao 2023).

    z = α x + σ ε,   α² = sigmoid(λ),   σ² = sigmoid(−λ),   v = α ε − σ x

x here is the scaled volume, c times the phase in rad.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = 25.0  # c: brings the standard deviation of a volume in rad to about 1 (paper, section 3)


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
