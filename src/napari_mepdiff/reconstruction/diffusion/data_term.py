"""The data as the prior sees them: a misfit of volumes on the prior's grid and scale.

In nats by default: whatever the misfit, it is divided by its shot-noise expectation and multiplied
by that of the Poisson likelihood, so that one unit is one nat of a Poisson likelihood at every
dose, scan and detector: a misfit of squares and a logarithm weigh the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...physics.likelihood import Likelihood
from ...physics.loss import Batch
from ...physics.misfit import Misfit, shot_noise
from ..problem import Problem
from .grid import Grid

Unit = Literal["nats", "normalised"]


class VolumeMisfit(Protocol):
    """What guides ask of the data."""

    def __call__(self, x: Tensor) -> tuple[float, Tensor, float]:
        """Misfit L of x (D, H, W), ∂L/∂x, and the misfit over shot noise."""
        ...

    def value(self, x: Tensor) -> tuple[float, float]:
        """L and the misfit over shot noise."""
        ...


class DataTerm:
    """A misfit L(x) of one scaled volume, summed over all positions.

    Parameters
    ----------
    problem : Problem
    grid : Grid
    misfit : 'poisson', 'amplitude' or 'intensity'
    stride : 1 or 2
        Detector stride.
    memory : int
        Bytes for waves.
    unit : 'nats' or 'normalised'
        'nats': L = −log p(y | x) up to a constant. 'normalised': the misfit of patterns that are
        divided by the largest value of their mean, as PtyRAD's initialiser scales them.
    poll : callable, optional
        Asked before each block of positions; what it raises ends the evaluation.

    Attributes
    ----------
    seconds : float
        Spent in the likelihood so far.
    """

    def __init__(
        self,
        problem: Problem,
        grid: Grid,
        misfit: Misfit,
        stride: int,
        memory: int,
        unit: Unit = "nats",
        poll: Callable[[], None] | None = None,
    ) -> None:
        if unit == "normalised" and misfit != "intensity":
            raise ValueError(f"normalised patterns are compared by intensity, not by {misfit}")
        self.grid, self.misfit, self.unit = grid, misfit, unit
        like = problem.likelihood(misfit, detector_stride=stride, memory=memory)
        assert isinstance(like, Likelihood)
        like.poll = poll
        self.likelihood, self.count = like, like.count
        self.noise = shot_noise(like, misfit)  # expected misfit per pattern
        self.nats = shot_noise(like, "poisson")  # expected nats per pattern
        self.electrons = float(problem.patterns.sum(dtype=np.float64)) / self.count
        # L = loss · up / down
        if unit == "nats":
            self._up, self._down = self.nats, self.noise
        else:
            self._up, self._down = 1.0, brightest(like) ** 2
        self.seconds = 0.0

    def __call__(self, x: Tensor, batch: Batch = None) -> tuple[float, Tensor, float]:
        """L of all positions (estimated from the batch), ∂L/∂x (D, H', W'), misfit over noise."""
        begin = time.perf_counter()
        used = self.count if batch is None else len(batch)
        loss, gradient = self.likelihood(self.grid.to_problem(x), batch)
        scale = self._up / self._down * self.count / used
        pulled = self.grid.adjoint(gradient * scale)
        self.seconds += time.perf_counter() - begin
        return loss * scale, pulled, loss / (self.noise * used)

    def value(self, x: Tensor, batch: Batch = None) -> tuple[float, float]:
        """L and the misfit over shot noise, without the gradient: half the work."""
        begin = time.perf_counter()
        used = self.count if batch is None else len(batch)
        loss = self.likelihood.loss(self.grid.to_problem(x), batch)
        self.seconds += time.perf_counter() - begin
        return loss * self._up / self._down * self.count / used, loss / (self.noise * used)

    def of(self, batch: NDArray[np.int64] | None) -> VolumeMisfit:
        """The same, estimated from some of the positions (all where there is no batch)."""
        return self if batch is None else _Part(self, batch)

    def per_electron(self, relative: float) -> float:
        """Nats per electron from a misfit over shot noise."""
        return relative * self.nats / max(self.electrons, 1e-30)


class _Part:
    """A data term of some of the positions."""

    def __init__(self, term: DataTerm, batch: NDArray[np.int64]) -> None:
        self.term, self.batch = term, batch

    def __call__(self, x: Tensor) -> tuple[float, Tensor, float]:
        return self.term(x, self.batch)

    def value(self, x: Tensor) -> tuple[float, float]:
        return self.term.value(x, self.batch)


def brightest(likelihood: Likelihood) -> float:
    """Largest value of the mean pattern over the pixels in use, electrons."""
    used = likelihood.weight.cpu().numpy() > 0
    return max(float(likelihood.mean_pattern[used].max()), 1e-30)


def pick_stride(problem: Problem, wanted: int) -> int:
    """2 where every second detector pixel is enough, else 1.

    It is where the detector divides by 4, and the probe fits into half its window or the field
    repeats with it.
    """
    if wanted == 1:
        return 1
    window = problem.patterns.shape[1:]
    if any(n % 4 for n in window):
        return 1
    half = tuple(n // 2 for n in window)
    if problem.boundary == "periodic" and all(
        h % n == 0 for h, n in zip(half, problem.shape[1:], strict=True)
    ):
        return 2
    intensity = problem.probe.abs().square().sum(dim=0)
    inner = intensity[half[0] // 2 : -(half[0] // 2), half[1] // 2 : -(half[1] // 2)]
    return 2 if float(inner.sum() / intensity.sum()) > 0.99 else 1
