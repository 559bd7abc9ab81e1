"""Estimate: how long a run will take and how much memory, before it begins.

From a short measurement on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..physics.misfit import Misfit
from .problem import Problem
from .settings import SolverSettings

if TYPE_CHECKING:
    from .diffusion.settings import DPSSettings

PROBES = 48  # positions of the trial evaluation


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of a run.

    `uncertain` where the work depends on what the data turn out to hold.
    """

    seconds: float
    bytes: int
    device: str
    uncertain: bool = False

    def __str__(self) -> str:
        about = "roughly " if self.uncertain else "about "
        time = "under 1 s" if self.seconds < 1 else f"{about}{clock(self.seconds)}"
        size = f"{self.bytes / 1e6:.0f} MB" if self.bytes < 1e8 else f"{self.bytes / 1e9:.1f} GB"
        return f"{time}, {size} on {self.device}"


def clock(seconds: float) -> str:
    """Seconds as people say them: 40 s, 3 min 20 s, 2 h 10 min."""
    seconds = max(0, round(seconds))
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def estimate(problem: Problem, settings: SolverSettings) -> Estimate:
    """Time and memory of a run, after one evaluation of the physics on a few positions and one of
    the network.

    Parameters
    ----------
    problem : Problem
    settings : SolverSettings
        Of Adam, L-BFGS, atomic sources, refinement or diffusion posterior sampling.
    """
    s: Any = settings
    sampling = s.solver == "dps"
    misfit = s.misfit
    stride = _stride(problem) if sampling and s.detector_stride == 2 else s.detector_stride
    if sampling and s.guidance == "paper":  # every detector pixel
        stride, misfit = 1, "intensity"
    pattern = _gradient_seconds(problem, misfit, stride, getattr(s, "engine", "own"))
    count = len(problem.patterns)
    full = pattern * count
    voxels = int(np.prod(problem.shape))
    planes = -(-problem.shape[0] // problem.together)
    waves = 16 * planes * int(np.prod(problem.patterns.shape[1:]))  # of one position
    size = problem.patterns.nbytes + min(s.memory, count * waves)
    if sampling:
        seconds, uncertain = _sampling(problem, s, full)
        size += 60 * voxels * 4 * (s.samples or 1) * 24
    else:
        seconds, uncertain = settings.gradients(count) * pattern, settings.uncertain
        size += int(settings.held_volumes() * voxels * 4)
    return Estimate(float(seconds), int(size), problem.device, uncertain)


def _stride(problem: Problem) -> int:
    from .diffusion.data_term import pick_stride

    return pick_stride(problem, 2)


def _gradient_seconds(problem: Problem, misfit: Misfit, stride: int, engine: str) -> float:
    """Seconds of loss and gradient for one position; measured once for each geometry."""

    def measured() -> float:
        part = np.linspace(0, count - 1, min(PROBES, count)).astype(int)
        few = replace(problem, patterns=problem.patterns[part], positions=problem.positions[part])
        like = few.likelihood(
            misfit, engine=engine, detector_stride=1 if engine == "ptyrad" else stride
        )
        x = torch.zeros(problem.shape, device=problem.device)
        like(x)  # plans and buffers
        return min(_time(lambda: like(x), problem.device) for _ in range(3)) / len(part)

    count = len(problem.patterns)
    key = (*_geometry(problem), min(PROBES, count), misfit, stride, engine)
    return _once(key, measured)


def _geometry(problem: Problem) -> tuple[Hashable, ...]:
    """What the time of an evaluation depends on."""
    p = problem
    slices, probe = p.slice_thickness, tuple(p.probe.shape)
    return (p.device, p.shape, p.voxel_size, slices, p.together, p.energy, p.boundary, probe)


_speeds: dict[Hashable, float] = {}  # s, measured in this process
MOST = 64  # of them


def _once(key: Hashable, measured: Callable[[], float]) -> float:
    """Measure what has not been measured; changes of settings that do not matter cost nothing."""
    if key not in _speeds:
        while len(_speeds) >= MOST:
            _speeds.pop(next(iter(_speeds)), None)
        _speeds[key] = measured()
    return _speeds[key]


def _sampling(problem: Problem, s: DPSSettings, full: float) -> tuple[float, bool]:
    from ..prior.model import Prior
    from .diffusion.begin import expected_kind
    from .diffusion.grid import Grid
    from .diffusion.levels import samples as samples_of

    kind = expected_kind(s, problem)
    atoms, samples = kind == "atoms", samples_of(s, kind)
    through = kind in ("newton", "paper", "adam")

    def measured() -> float:
        prior = Prior.load(s.prior, device=problem.device, precision=s.precision)
        z = torch.randn(1, *Grid(problem, prior).shape, device=problem.device)

        def network() -> None:
            if through:
                x, pull = prior.vjp(z, -2.0, None)
                pull(x)
            else:
                prior(z, -2.0, None)

        network()
        return min(_time(network, problem.device) for _ in range(2))

    one = _once((*_geometry(problem), s.prior, s.precision, through), measured) * samples
    batch = full * (1.0 if kind == "paper" else s.fraction)
    step = one + (0.0 if atoms else batch * (s.inner if kind == "decoupled" else 1))
    conditioned = s.condition != "none" and kind != "paper"
    ordinary = s.evaluations * full if conditioned or atoms else 0.0
    # whole atoms: the search over columns between passes, measured on crystals of the paper's size
    # as gradients of all positions
    search = 190 * full if atoms else 0.0
    return ordinary + search + s.steps * step, atoms


def _time(work: Callable[[], object], device: str) -> float:
    begin = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begin
