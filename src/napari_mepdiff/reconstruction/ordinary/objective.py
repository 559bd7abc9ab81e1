"""What Adam and L-BFGS minimise (paper, section 2): ‖f(x) − y‖² + γ‖x‖₁.

It is divided by the shot-noise expectation of the misfit, so that its value is about 1 at the truth
and γ means the same at every dose, scan and detector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from ...physics.loss import Batch, LikelihoodFunction
from ...physics.misfit import Misfit, shot_noise
from ..problem import Problem
from ..settings import SolverSettings


class GradientSettings(SolverSettings):
    """What Adam and L-BFGS share."""

    misfit: Misfit = Field("intensity", title="Misfit")
    l1: float = Field(
        0.0, ge=0, title="Sparsity γ", description="weight of the mean |phase| (per rad)"
    )
    non_negative: bool = Field(False, title="Non-negative phase")
    depth_smoothing: float = Field(
        0.0,
        ge=0,
        title="Depth smoothing",
        description="weight of the mean squared step between slices (per rad²)",
    )
    engine: Literal["own", "ptyrad"] = Field("own", title="Physics engine")


class Compared(Protocol):
    """What the misfit asks of a solver's settings; an `engine` is optional."""

    @property
    def misfit(self) -> Misfit: ...
    @property
    def detector_stride(self) -> int: ...
    @property
    def memory(self) -> int: ...


class Objective:
    """Misfit relative to shot noise plus penalties, with its gradient.

    Parameters
    ----------
    problem : Problem
    settings : Compared
        For the misfit alone; its penalties ask for GradientSettings.
    poll : callable, optional
        Asked before each block of positions; what it raises ends the evaluation.
    """

    def __init__(
        self, problem: Problem, settings: Compared, poll: Callable[[], None] | None = None
    ) -> None:
        self.likelihood: LikelihoodFunction = problem.likelihood(
            settings.misfit,
            engine=getattr(settings, "engine", "own"),
            detector_stride=settings.detector_stride,
            memory=settings.memory,
        )
        self.likelihood.poll = poll
        self.noise = shot_noise(self.likelihood, settings.misfit)
        self.count, self.shape = self.likelihood.count, self.likelihood.shape

    def misfit(self, volume: Tensor, batch: Batch = None) -> tuple[float, Tensor]:
        """Relative misfit per position and its gradient."""
        loss, gradient = self.likelihood(volume, batch)
        scale = self.noise * (self.count if batch is None else len(batch))
        return loss / scale, gradient / scale

    def __call__(
        self, volume: Tensor, settings: GradientSettings, batch: Batch = None
    ) -> tuple[float, Tensor, float]:
        """Objective, gradient, and the misfit alone."""
        misfit, gradient = self.misfit(volume, batch)
        total = misfit
        if settings.l1:
            total += settings.l1 * float(volume.abs().mean())
            gradient = gradient + (settings.l1 / volume.numel()) * volume.sign()
        if settings.depth_smoothing and volume.shape[0] > 1:
            step = volume.diff(dim=0)
            total += settings.depth_smoothing * float(step.square().mean())
            pull = torch.zeros_like(volume)
            pull[1:] += step
            pull[:-1] -= step
            gradient = gradient + (2 * settings.depth_smoothing / step.numel()) * pull
        return total, gradient, misfit
