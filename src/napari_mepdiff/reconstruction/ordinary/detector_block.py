"""The detector's part of a refinement: counts that do not come from the specimen.

A constant background fills the dark field. A model without it sends electrons there that no
specimen scattered: phases of many turns, or a volume full of noise. It begins at half of what the
dimmest pixels have on average (it cannot be more than all of that), which also keeps the likelihood
of the dark field tame while the volume forms, and moves by Newton steps with the curvature Σ 1/I of
Poisson counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...physics.likelihood import Likelihood
from ...physics.misfit import Misfit
from .volume_block import NATS

_DIM = 0.1  # share of the pixels that are looked at
_RATE = 0.2  # of a Newton step for each batch


class BackgroundBlock:
    """Electrons per pixel and pattern that are not of the specimen.

    Attributes
    ----------
    value : float
    """

    def __init__(self, likelihood: Likelihood, misfit: Misfit) -> None:
        self.misfit = misfit
        weight = likelihood.weight.cpu().numpy() > 0
        self._mean = likelihood.mean_pattern[weight]
        dim = np.sort(self._mean)[: max(1, int(_DIM * self._mean.size))]
        self.most = float(dim.mean())
        self.value = 0.5 * self.most

    def apply(self, likelihood: Likelihood) -> None:
        """Tell the likelihood."""
        detector = likelihood.detector
        likelihood.set_detector(blur=detector.blur, background=self.value, image=detector.image)

    def step(self, gradient: float, count: int) -> None:
        """Against the gradient of `count` positions."""
        curvature = float((1 / np.maximum(self._mean, self.value + 1e-6)).sum())
        self.value -= _RATE * NATS[self.misfit] * gradient / count / curvature
        self.value = min(self.most, max(0.0, self.value))

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"value": torch.tensor(self.value, dtype=torch.float64)}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        self.value = float(state["value"])
