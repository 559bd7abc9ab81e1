"""Estimate: how long a run will take and how much memory, before it begins; from a short measurement on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .problem import Problem
from .stream import SolverSettings

PROBES = 48  # positions of the trial evaluation


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of a run. `uncertain` where the work depends on what the data turn out to hold."""

    seconds: float
    bytes: int
    device: str
    uncertain: bool = False

    def __str__(self) -> str:
        about = "roughly " if self.uncertain else "about "
        return f"{about}{clock(self.seconds)}, {self.bytes / 1e9:.1f} GB on {self.device}"


def clock(seconds: float) -> str:
    """Seconds as people say them: 40 s, 3 min 20 s, 2 h 10 min."""
    seconds = max(0, round(seconds))
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def estimate(problem: Problem, settings: SolverSettings) -> Estimate:
    """Time and memory of a run, after one evaluation of the physics on a few positions and one of the network.

    Parameters
    ----------
    problem : Problem
    settings : SolverSettings
        Of Adam, L-BFGS, atomic sources, refinement or diffusion posterior sampling.
    """
    s: Any = settings
    name = getattr(s, "solver", "")
    misfit = getattr(s, "misfit", "poisson")
    stride = s.detector_stride if name != "dps" or s.detector_stride == 1 else _stride(problem)
    pattern = _gradient_seconds(problem, misfit, stride, getattr(s, "engine", "own"))
    count = len(problem.patterns)
    full = pattern * count
    voxels = int(np.prod(problem.shape))
    size = problem.patterns.nbytes * (2 if stride == 1 else 1.25) + min(s.memory, count * problem.shape[0] * 16
                                                                          * int(np.prod(problem.patterns.shape[1:])))
    uncertain = False
    if name == "adam":
        seconds = s.iterations * full
    elif name == "lbfgs":
        evaluations = s.iterations * s.evaluations * len(s.learning_rates)
        seconds = evaluations * pattern * (count if s.batch is None else min(s.batch, count)) + s.iterations * full
        size += 2 * s.history * voxels * 4
    elif name == "dps":
        seconds, uncertain = _sampling(problem, s, pattern, full)
        size += 60 * voxels * 4 * (s.samples or 1) * 24
    elif name == "atomic":
        seconds, uncertain = s.iterations * full * 1.3, True
    else:
        seconds, uncertain = getattr(s, "iterations", 50) * full * 1.5, True
    return Estimate(float(seconds), int(size), problem.device, uncertain)


def _stride(problem: Problem) -> int:
    from .posterior import pick_stride

    return pick_stride(problem, 2)


def _gradient_seconds(problem: Problem, misfit: Any, stride: int, engine: str) -> float:
    """Seconds of loss and gradient for one position."""
    from dataclasses import replace

    part = np.linspace(0, len(problem.patterns) - 1, min(PROBES, len(problem.patterns))).astype(int)
    few = replace(problem, patterns=problem.patterns[part], positions=problem.positions[part])
    like = few.likelihood(misfit, engine=engine, detector_stride=1 if engine == "ptyrad" else stride)
    x = torch.zeros(problem.shape, device=problem.device)
    like(x)  # plans and buffers
    best = min(_time(lambda: like(x), problem.device) for _ in range(3))
    return best / len(part)


def _sampling(problem: Problem, s: Any, pattern: float, full: float) -> tuple[float, bool]:
    from ..prior.model import Prior
    from .diffusion import FREE, SAMPLES, WIDE
    from .posterior import Grid

    prior = Prior.load(s.prior, device=problem.device, precision=s.precision)
    grid = Grid(problem, prior)
    atoms = s.guidance == "atoms" or (s.guidance == "auto" and s.elements and problem.shape[1] * problem.shape[2] <= WIDE)
    kind = "atoms" if atoms else FREE if s.guidance == "auto" else s.guidance
    samples = s.samples or (SAMPLES if atoms else 1)
    z = torch.randn(1, *grid.shape, device=problem.device)
    through = kind in ("paper", "adam")

    def network() -> None:
        if through:
            x, pull = prior.vjp(z, -2.0, None)
            pull(x)
        else:
            prior(z, -2.0, None)

    network()
    one = min(_time(network, problem.device) for _ in range(2)) * samples
    batch = full * s.fraction
    step = one + (0.0 if atoms else batch * (s.inner if kind == "decoupled" else 1))
    ordinary = s.evaluations * full if s.condition != "none" or atoms else 0.0
    # whole atoms: the search over columns between passes, measured on crystals of the paper's size as gradients of all positions
    search = 190 * full if atoms else 0.0
    return ordinary + search + s.steps * step, bool(atoms)


def _time(work: Any, device: str) -> float:
    begin = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begin
