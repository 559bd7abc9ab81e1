"""The network within a run: its prediction and pullback, in smaller parts where memory is short."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ...prior.condition import Condition
from ...prior.model import Prior
from ..run import SolverError
from .guide import Pullback

T = TypeVar("T")


class Network:
    """x_θ(z, λ) and its pullback, with a clock.

    Parameters
    ----------
    prior : Prior
    poll : callable
        Asked before each layer; what it raises ends the evaluation.

    Attributes
    ----------
    part : int
        Latents that are evaluated at a time: as many as the device's memory took so far.
    seconds, seconds_pullback : float
        Spent so far.
    """

    def __init__(self, prior: Prior, poll: Callable[[], None]) -> None:
        self.prior, self.device = prior, torch.device(prior.device)
        self.part = 1 << 30
        self.seconds = self.seconds_pullback = 0.0
        for layer in prior.network.modules():
            layer.register_forward_hook(_polled(poll))

    def __call__(
        self, z: Tensor, log_snr: float, condition: Condition | None, seed: int, through: bool
    ) -> tuple[Tensor, Pullback | None]:
        """x_θ of all samples (K, D, H, W) and, if wanted, g ↦ (∂x_θ/∂z)ᵀ g.

        Raises
        ------
        SolverError
            If the device's memory does not take one sample.
        """
        begin = time.perf_counter()

        def forward() -> tuple[Tensor, Pullback | None]:
            if through and self.part >= len(z):
                return self.prior.vjp(z, log_snr, condition, seed)
            return torch.cat(
                [self.prior(p, log_snr, condition, seed) for p in self._parts(z)]
            ), None

        x, direct = self._within_memory(forward, len(z))
        self.seconds += time.perf_counter() - begin
        if not through:
            return x, None

        def again(gradient: Tensor) -> Tensor:
            pairs = zip(self._parts(z), self._parts(gradient), strict=True)
            return torch.cat([self.prior.vjp(p, log_snr, condition, seed)[1](g) for p, g in pairs])

        def pull(gradient: Tensor) -> Tensor:
            start = time.perf_counter()
            first = [direct]

            def backward() -> Tensor:
                once = first.pop() if first else None
                return again(gradient) if once is None else once(gradient)

            out = self._within_memory(backward, len(z))
            self.seconds_pullback += time.perf_counter() - start
            return out

        return x, pull

    def _parts(self, x: Tensor) -> list[Tensor]:
        return [x[i : i + self.part] for i in range(0, len(x), self.part)]

    def _within_memory(self, work: Callable[[], T], count: int) -> T:
        """The work, over halves where the device's memory does not take the whole."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if min(self.part, count) <= 1:
                    raise SolverError(
                        "the device has not enough memory for one evaluation of the network: crop "
                        "the field, or run on the CPU"
                    ) from error
            self.part = max(1, min(self.part, count) // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def _polled(poll: Callable[[], None]) -> Callable[..., None]:
    """A hook that asks after a layer's forward pass, and again in its backward pass."""

    def asked(_: Tensor) -> None:
        poll()

    def hook(layer: torch.nn.Module, given: object, out: object) -> None:
        poll()
        if isinstance(out, Tensor) and out.requires_grad:
            out.register_hook(asked)

    return hook
