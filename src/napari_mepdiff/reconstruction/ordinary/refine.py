"""Refinement of probe and positions together with one volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from ...physics.likelihood import Likelihood
from ...physics.misfit import Misfit, shot_noise
from ..frame import Frame, RefineInfo
from ..optimisers import Adam
from ..problem import Problem
from ..run import Run
from ..settings import SolverSettings
from .steps import frame, keeper, pack, start_volume, unpack

if TYPE_CHECKING:
    from ...microscope.state import MicroscopeState


class RefineSettings(SolverSettings):
    """Adam on the volume, the probe and the positions at once."""

    live: ClassVar[frozenset[str]] = frozenset(
        {
            "iterations",
            "batch",
            "learning_rate",
            "probe_rate",
            "position_rate",
            "max_shift",
            "probe_start",
            "non_negative",
        }
    )

    uncertain: ClassVar[bool] = True  # what refines probe and positions costs more
    solver: Literal["refine"] = "refine"
    misfit: Misfit = Field("amplitude", title="Misfit")
    iterations: int = Field(50, ge=1, title="Iterations", description="full passes over the scan")
    batch: int = Field(32, ge=1, title="Batch", description="positions per step")
    learning_rate: float = Field(
        5e-3, gt=0, title="Learning rate of the volume", description="rad per step"
    )
    probe_rate: float = Field(
        1e-3,
        ge=0,
        title="Learning rate of the probe",
        description="per step, of its largest amplitude; 0: fixed",
    )
    position_rate: float = Field(
        0.0, ge=0, title="Learning rate of the positions", description="Å per step; 0: fixed"
    )
    max_shift: float = Field(
        1.0, gt=0, title="Largest shift", description="Å from the given position"
    )
    probe_start: int = Field(
        5, ge=0, title="Probe from iteration", description="the volume forms first"
    )
    non_negative: bool = Field(True, title="Non-negative phase")

    def preview(self) -> Self:
        """Fewer passes with larger steps: every detector pixel is needed."""
        return self.with_fields(iterations=12, probe_start=3, learning_rate=1e-2)

    def gradients(self, positions: int) -> float:
        """One of each position in each pass, with those of probe and positions."""
        return 1.5 * self.iterations * positions

    def idle(self) -> dict[str, str]:
        """What acts only where something moves."""
        if self.probe_rate or self.position_rate:
            return {} if self.position_rate else {"max_shift": "the positions are fixed"}
        return dict.fromkeys(("max_shift", "probe_start"), "probe and positions are fixed")

    def position_room(self) -> float:
        """The largest shift, where positions are refined."""
        return self.max_shift if self.position_rate else 0.0


AT_THE_RIM = (
    "some positions want to move beyond the field and are held at its rim; a new run with the "
    "largest shift that they need makes room for it"
)


def refined(frame: Frame, problem: Problem, **provenance: Any) -> MicroscopeState | None:
    """Probe and positions of a run's frame, for a file and for the next run; None of other runs."""
    info = frame.info
    if not isinstance(info, RefineInfo):
        return None
    return problem.microscope(info.probe, info.positions, **provenance)


def refine(run: Run[RefineSettings]) -> Iterator[Frame]:
    """One frame per pass; ``info`` carries the probe (M, Ky, Kx) and the positions (N, 2) in Å."""
    problem, s = run.problem, run.settings
    like = problem.likelihood(s.misfit, detector_stride=1, memory=s.memory)
    assert isinstance(like, Likelihood)
    like.poll = run.control.breathe
    noise = shot_noise(like, s.misfit)
    rng = np.random.default_rng(s.seed)
    x = start_volume(run, like)
    probe = like.probe.clone()
    home = like.positions.clone()
    places = home.clone()
    optimizer = Adam(
        [
            {"params": [x], "lr": s.learning_rate},
            {"params": [probe], "lr": 0.0},
            {"params": [places], "lr": 0.0},
        ]
    )
    power, top = float(probe.abs().square().sum()), float(probe.abs().max())
    low, high = (torch.from_numpy(b) for b in problem.position_bounds())
    step, held = 0, False
    if run.state is not None:
        step = int(run.state["step"])
        probe.copy_(run.state["probe"])
        places.copy_(run.state["positions"])
        optimizer.load_state_dict(run.state["optimizer"])
        rng.bit_generator.state = unpack(run.state["rng"])
        like.set_probe(probe)
        like.set_positions(places)
    while step < run.settings.iterations and run.go_on(step):
        s = run.settings
        if step >= s.iterations:  # fewer were asked for meanwhile
            return
        step += 1
        moving = step > s.probe_start
        optimizer.param_groups[0]["lr"] = s.learning_rate
        optimizer.param_groups[1]["lr"] = s.probe_rate * top if moving else 0.0
        optimizer.param_groups[2]["lr"] = s.position_rate if moving else 0.0
        order, losses = rng.permutation(like.count), []
        for i in range(0, len(order), s.batch):
            batch = order[i : i + s.batch]
            scale = noise * len(batch)
            g = like.gradients(
                x,
                batch,
                probe=moving and s.probe_rate > 0,
                positions=moving and s.position_rate > 0,
            )
            assert g.volume is not None
            x.grad = g.volume / scale
            probe.grad = None if g.probe is None else g.probe / scale
            places.grad = None
            if g.positions is not None:
                places.grad = torch.zeros_like(places).index_copy_(
                    0, torch.as_tensor(batch), g.positions / scale
                )
            optimizer.step()
            if s.non_negative:
                x.clamp_(min=0)
            if g.probe is not None:
                probe *= (power / float(probe.abs().square().sum())) ** 0.5  # the dose is known
                like.set_probe(probe)
            if g.positions is not None:
                shift = (places - home).clamp(-s.max_shift, s.max_shift)
                # a common shift moves the volume, not the probe
                wanted = home + shift - shift.mean(dim=0)
                places.copy_(wanted.clamp(low, high))
                like.set_positions(places)
                if not held and not torch.equal(places, wanted):
                    held = True
                    run.control.notes.append(f"step {step}: {AT_THE_RIM}")
            losses.append(g.loss / scale)
        run.keep(
            keeper(
                step,
                run,
                x=x,
                probe=probe,
                positions=places,
                optimizer=optimizer.state_dict(),
                rng=pack(rng),
            )
        )
        yield frame(
            run,
            step,
            s.iterations,
            x,
            float(np.mean(losses)),
            RefineInfo(probe=probe.cpu().numpy().copy(), positions=places.cpu().numpy().copy()),
        )
