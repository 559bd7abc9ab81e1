"""Steps of Adam (Kingma and Ba, ICLR 2015) for a few parameters in units of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Moments:
    """Slow means of a gradient and of its square.

    Parameters
    ----------
    like : Tensor
        The parameters.
    """

    def __init__(self, like: Tensor) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.steps = 0

    def direction(self, pull: Tensor) -> Tensor:
        """Where a gradient points once its size is taken out, about 1 for each parameter."""
        self.steps += 1
        self.mean.lerp_(pull, 0.1)
        self.square.lerp_(pull.square(), 0.01)
        mean = self.mean / (1 - 0.9**self.steps)
        root = (self.square / (1 - 0.99**self.steps)).sqrt()
        return mean / (root + 1e-30)

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"mean": self.mean, "square": self.square, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        self.mean, self.square = state["mean"].clone(), state["square"].clone()
        self.steps = int(state["steps"])
