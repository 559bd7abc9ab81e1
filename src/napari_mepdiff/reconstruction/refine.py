"""Refinement of probe and positions: together with one volume, or one probe over many specimens.

The paper fits one fixed probe on 32 validation examples by minimising over the probe and all volumes at once (appendix C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..physics.likelihood import Likelihood, Misfit
from .gradient import _keeper, _pack, _unpack, frame, shot_noise, start_volume
from .problem import Problem
from .stream import Frame, Run, SolverSettings


class RefineSettings(SolverSettings):
    """Adam on the volume, the probe and the positions at once."""

    solver: Literal["refine"] = "refine"
    misfit: Misfit = Field("amplitude", title="Misfit")
    iterations: int = Field(50, ge=1, title="Iterations", description="full passes over the scan")
    batch: int = Field(32, ge=1, title="Batch", description="positions per step")
    learning_rate: float = Field(5e-3, gt=0, title="Learning rate of the volume", description="rad per step")
    probe_rate: float = Field(
        1e-3, ge=0, title="Learning rate of the probe", description="per step, of its largest amplitude; 0: fixed"
    )
    position_rate: float = Field(0.0, ge=0, title="Learning rate of the positions", description="Å per step; 0: fixed")
    max_shift: float = Field(1.0, gt=0, title="Largest shift", description="Å from the given position")
    probe_start: int = Field(5, ge=0, title="Probe from iteration", description="the volume forms first")
    non_negative: bool = Field(True, title="Non-negative phase")


def refine(run: Run) -> Iterator[Frame]:
    """One frame per pass; ``info`` carries the probe (M, Ky, Kx) and the positions (N, 2) in Å."""
    problem, s = run.problem, run.settings
    like = problem.likelihood(s.misfit, detector_stride=1, memory=s.memory)
    assert isinstance(like, Likelihood)
    noise = shot_noise(like, s.misfit, problem)
    rng = np.random.default_rng(s.seed)
    x = start_volume(run, like)
    probe = like.probe.clone()
    home = like.positions.clone()
    places = home.clone()
    optimizer = torch.optim.Adam([
        {"params": [x], "lr": s.learning_rate},
        {"params": [probe], "lr": 0.0},
        {"params": [places], "lr": 0.0},
    ])
    power, top = float(probe.abs().square().sum()), float(probe.abs().max())
    first = 0
    if run.state is not None:
        first = int(run.state["step"])
        probe.copy_(run.state["probe"])
        places.copy_(run.state["positions"])
        optimizer.load_state_dict(run.state["optimizer"])
        rng.bit_generator.state = _unpack(run.state["rng"])
        like.set_probe(probe)
        like.set_positions(places)
    for step in range(first + 1, s.iterations + 1):
        if not run.go_on(step - 1):
            return
        s = run.settings
        moving = step > s.probe_start
        optimizer.param_groups[0]["lr"] = s.learning_rate
        optimizer.param_groups[1]["lr"] = s.probe_rate * top if moving else 0.0
        optimizer.param_groups[2]["lr"] = s.position_rate if moving else 0.0
        order, losses = rng.permutation(like.count), []
        for i in range(0, len(order), s.batch):
            batch = order[i : i + s.batch]
            scale = noise * len(batch)
            g = like.gradients(x, batch, probe=moving and s.probe_rate > 0, positions=moving and s.position_rate > 0)
            assert g.volume is not None
            x.grad = g.volume / scale
            probe.grad = None if g.probe is None else g.probe / scale
            places.grad = None
            if g.positions is not None:
                places.grad = torch.zeros_like(places).index_copy_(0, torch.as_tensor(batch), g.positions / scale)
            optimizer.step()
            if s.non_negative:
                x.clamp_(min=0)
            if g.probe is not None:
                probe *= (power / float(probe.abs().square().sum())) ** 0.5  # the dose is known
                like.set_probe(probe)
            if g.positions is not None:
                shift = (places - home).clamp(-s.max_shift, s.max_shift)
                places.copy_(home + shift - shift.mean(dim=0))  # a common shift moves the volume, not the probe
                like.set_positions(places)
            losses.append(g.loss / scale)
        run.keep(_keeper(step, run, x=x, probe=probe, positions=places, optimizer=optimizer.state_dict(), rng=_pack(rng)))
        yield frame(run, step, s.iterations, x, float(np.mean(losses)), probe=probe.cpu().numpy().copy(),
                    positions=places.numpy().copy())


def fit_probe(
    problems: Sequence[Problem],
    settings: RefineSettings | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Tensor:
    """One probe for many measurements taken under the same conditions (paper, appendix C).

    Every step takes a batch of one specimen after the other; each specimen has its own volume, all share the probe.

    Parameters
    ----------
    problems : sequence of Problem
        Same window and electrons; the probe of the first is the start.
    settings : RefineSettings
        `iterations` passes over all specimens.
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
    s = settings or RefineSettings()
    if not problems:
        raise ValueError("a probe fit needs at least one measurement")
    if len({tuple(p.probe.shape) for p in problems}) != 1:
        raise ValueError("all measurements of a probe fit need the same window and number of modes")
    likes = [p.likelihood(s.misfit, memory=s.memory) for p in problems]
    volumes = [torch.zeros(q.shape, device=q.device) for q in likes]
    probe = problems[0].probe.to(likes[0].device).clone()
    power, top = float(probe.abs().square().sum()), float(probe.abs().max())
    on_volume = torch.optim.Adam(volumes, lr=s.learning_rate)
    on_probe = torch.optim.Adam([probe], lr=s.probe_rate * top)
    noise = [shot_noise(q, s.misfit, p) for q, p in zip(likes, problems, strict=True)]
    rng = np.random.default_rng(s.seed)
    for step in range(1, s.iterations + 1):
        moving = step > s.probe_start
        losses = []
        batches = [(k, b) for k, q in enumerate(likes)
                   for b in np.array_split(rng.permutation(q.count), -(-q.count // s.batch))]
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
    """Relative L2 distance of two probes after the best common phase and shift by whole pixels are taken out."""
    a, b = probe.to(torch.complex128), truth.to(torch.complex128)
    cross = torch.fft.ifft2((torch.fft.fft2(a).conj() * torch.fft.fft2(b)).sum(dim=0) if a.ndim == 3 else
                            torch.fft.fft2(a).conj() * torch.fft.fft2(b))
    na, nb = float(a.abs().square().sum()), float(b.abs().square().sum())
    return max(0.0, 2 - 2 * float(cross.abs().max()) / (na * nb) ** 0.5) ** 0.5
