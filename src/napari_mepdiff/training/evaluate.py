"""The network as a step of training evaluates it: compiled where that was asked for and works."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..base.devices import first_line
from .settings import TrainSettings


class Evaluation:
    """Calls the network, by ``torch.compile`` for the usual volume if the settings say so.

    Other shapes are few, and each would be compiled anew: they go without.

    Parameters
    ----------
    model : Module
    settings : TrainSettings
    notes : list of str
        Receives what went wrong.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, notes: list[str]) -> None:
        s = settings
        self.model, self.notes = model, notes
        self.usual = (s.batch, s.slices, s.lateral, s.lateral)
        self._fast: Callable[..., Tensor] | None = None
        if s.compile:
            self._fast = torch.compile(model, dynamic=False)

    def __call__(self, z: Tensor, *given: Tensor | None) -> Tensor:
        """v (B, D, H, W)."""
        usual = tuple(z.shape) == self.usual
        if z.device.type == "cuda":  # to try all kernels pays for what comes again and again
            torch.backends.cudnn.benchmark = usual
        if self._fast is None or not usual:
            return self.model(z, *given)
        try:
            return self._fast(z, *given)
        except Exception as error:  # the compiler raises whatever it meets
            if "out of memory" in str(error).lower():
                raise
            self._fast = None
            self.notes.append(
                f"torch.compile failed ({first_line(error)[:200]}); going on without it"
            )
            return self.model(z, *given)
