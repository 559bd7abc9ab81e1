"""One probe for many measurements taken under the same conditions.

The paper fits one fixed probe on 32 validation examples by minimising over the probe and all
volumes at once (appendix C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...physics.likelihood import Likelihood
from ...physics.misfit import Misfit, shot_noise
from ..optimisers import Adam
from ..problem import Problem
from ..settings import SolverSettings


class ProbeFitSettings(SolverSettings):
    """Adam on all volumes and the probe that they share."""

    misfit: Misfit = Field("amplitude", title="Misfit")
    iterations: int = Field(50, ge=1, title="Iterations", description="passes over all specimens")
    batch: int = Field(32, ge=1, title="Batch", description="positions per step")
    learning_rate: float = Field(
        5e-3, gt=0, title="Learning rate of the volumes", description="rad per step"
    )
    probe_rate: float = Field(
        1e-3,
        gt=0,
        title="Learning rate of the probe",
        description="per step, of its largest amplitude",
    )
    probe_start: int = Field(
        5, ge=0, title="Probe from iteration", description="the volumes form first"
    )
    non_negative: bool = Field(True, title="Non-negative phase")


def fit_probe(
    problems: Sequence[Problem],
    settings: ProbeFitSettings | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Tensor:
    """One probe for many measurements taken under the same conditions (paper, appendix C).

    Every step takes a batch of one specimen after the other; each specimen has its own volume, all
    share the probe.

    Parameters
    ----------
    problems : sequence of Problem
        Same window and electrons; the probe of the first is the start.
    settings : ProbeFitSettings
    progress : callable, optional
        Called with (pass, passes, mean relative misfit).

    Returns
    -------
    Tensor
        (M, Ky, Kx) complex64, centred, √electrons.

    Raises
    ------
    ValueError
        If there is no problem or their windows differ.
    """
    s = settings or ProbeFitSettings()
    if not problems:
        raise ValueError("a probe fit needs at least one measurement")
    if len({tuple(p.probe.shape) for p in problems}) != 1:
        raise ValueError("all measurements of a probe fit need the same window and number of modes")
    likes = [p.likelihood(s.misfit, memory=s.memory) for p in problems]
    volumes = [torch.zeros(q.shape, device=q.device) for q in likes]
    probe = problems[0].probe.to(likes[0].device).clone()
    power, top = float(probe.abs().square().sum()), float(probe.abs().max())
    on_volume = Adam(volumes, lr=s.learning_rate)
    on_probe = Adam([probe], lr=s.probe_rate * top)
    noise = [shot_noise(q, s.misfit) for q in likes]
    rng = np.random.default_rng(s.seed)
    for step in range(1, s.iterations + 1):
        moving = step > s.probe_start
        losses = []
        batches = [
            (k, b)
            for k, q in enumerate(likes)
            for b in np.array_split(rng.permutation(q.count), -(-q.count // s.batch))
        ]
        for n in rng.permutation(len(batches)):
            k, batch = batches[n]
            like = likes[k]
            assert isinstance(like, Likelihood)
            like.set_probe(probe)
            g = like.gradients(volumes[k], batch, probe=moving)
            assert g.volume is not None
            on_volume.zero_grad(set_to_none=True)
            volumes[k].grad = g.volume / (noise[k] * len(batch))
            on_volume.step()
            if s.non_negative:
                volumes[k].clamp_(min=0)
            if g.probe is not None:
                probe.grad = g.probe / (noise[k] * len(batch))
                on_probe.step()
                probe *= (power / float(probe.abs().square().sum())) ** 0.5
            losses.append(g.loss / (noise[k] * len(batch)))
        if progress:
            progress(step, s.iterations, float(np.mean(losses)))
    return probe.cpu()


def probe_error(probe: Tensor, truth: Tensor) -> float:
    """Relative L2 distance of two probes after the best common phase and shift by whole pixels are
    taken out.
    """
    a, b = probe.to(torch.complex128), truth.to(torch.complex128)
    cross = torch.fft.ifft2(
        (torch.fft.fft2(a).conj() * torch.fft.fft2(b)).sum(dim=0)
        if a.ndim == 3
        else torch.fft.fft2(a).conj() * torch.fft.fft2(b)
    )
    na, nb = float(a.abs().square().sum()), float(b.abs().square().sum())
    return max(0.0, 2 - 2 * float(cross.abs().max()) / (na * nb) ** 0.5) ** 0.5
