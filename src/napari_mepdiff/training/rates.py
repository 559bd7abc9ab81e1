"""How fast the weights and their average move."""

from __future__ import annotations

import math

import torch
from torch import nn

from .settings import TrainSettings


def optimiser_of(network: nn.Module, settings: TrainSettings, device: str) -> torch.optim.AdamW:
    """AdamW in one pass over all weights where it can; biases and norms do not decay."""
    decay = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        fused=device == "cpu" or device.startswith("cuda"),
    )


def rate_at(settings: TrainSettings, step: int, begun: int, progress: float) -> float:
    """Learning rate of a step: it rises, stays (or halves slowly), and may fall to nothing in the
    end.

    Parameters
    ----------
    step, begun : int
        The present one, and that with which the run began.
    progress : float
        How much of the run is over, 0 to 1.
    """
    s = settings
    rate = s.learning_rate * min(1.0, (step - begun + 1) / max(1, s.warm_up))
    if s.fall:
        rate *= min(1.0, max(1e-3, (1 - progress) / s.fall))
    return rate * (0.5 ** (step / s.half_life) if s.half_life else 1.0)


def decay_at(settings: TrainSettings, step: int, processes: int = 1) -> float:
    """What the average of the weights keeps of itself at a step; less in the beginning."""
    s = settings
    decay = s.average
    if s.average_over:
        decay = math.exp(-s.batch * processes / s.average_over)
    return min(decay, (1 + step) / (10 + step))
