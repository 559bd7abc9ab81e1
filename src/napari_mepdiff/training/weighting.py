"""Which noise levels count, and how often each is drawn in training (paper, section 3, table 3)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOW, HIGH = -20.0, 20.0  # λ_1 and λ_0 (paper, table 3)
MEAN, SPREAD = -7.0, 3.0  # of the weighting (paper, table 3)
BANDS = (-20.0, -13.0, -10.0, -7.0, -4.0, -1.0, 3.0, 20.0)  # λ bands in which losses are reported


def band_of(log_snr: float) -> str:
    """Name of the λ band."""
    for low, high in itertools.pairwise(BANDS):
        if log_snr < high:
            return f"{low:g}..{high:g}"
    return f"{BANDS[-2]:g}..{BANDS[-1]:g}"


def running(old: float, new: float, keep: float) -> float:
    """A running mean that begins with its first value."""
    return new if math.isnan(old) else keep * old + (1 - keep) * new


def weighting(log_snr: Tensor, mean: float = MEAN, spread: float = SPREAD) -> Tensor:
    """w(λ) = N(λ; −7, 3) / Z, with ∫ w = 1 over [λ_1, λ_0] (paper, section 3 and table 3)."""
    normal = torch.distributions.Normal(mean, spread, validate_args=False)
    inside = normal.cdf(torch.tensor(HIGH)) - normal.cdf(torch.tensor(LOW))
    return normal.log_prob(log_snr).exp() / inside


class AdaptiveSchedule:
    """Draws λ where the weighted loss is large; the objective stays, its variance falls.

    Kingma and Gao 2023, appendix F. The density over [λ_1, λ_0] is piecewise constant on equal
    bins, proportional to a moving average of w(λ) · loss(λ), and never less than a small share of
    the weighting's own.

    Parameters
    ----------
    bins : int
    decay : float
        Of the moving average, per draw that falls into a bin.
    mean, spread : float
        Of the weighting.
    """

    def __init__(
        self, bins: int = 80, decay: float = 0.995, mean: float = MEAN, spread: float = SPREAD
    ) -> None:
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
        """λ (count,) and the factors w(λ) / p(λ) that keep the objective ∫ w(λ) loss(λ) dλ,
        (count,).

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
        return {
            "average": self.average.clone(),
            "decay": self.decay,
            "mean": self.mean,
            "spread": self.spread,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        average = state["average"]
        other = AdaptiveSchedule(len(average), state["decay"], state["mean"], state["spread"])
        other.average = average.clone()
        vars(self).update(vars(other))
