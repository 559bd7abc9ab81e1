"""Adam on the phase volume, with the paper's settings as defaults (appendix C)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from ..frame import DescentInfo, Frame
from ..optimisers import Adam
from ..run import Run
from .objective import GradientSettings, Objective
from .steps import frame, keeper, pack, start_volume, unpack


class AdamSettings(GradientSettings):
    """Adam (Kingma and Ba 2014) over mini-batches of positions."""

    live: ClassVar[frozenset[str]] = frozenset(
        {"iterations", "batch", "learning_rate", "l1", "depth_smoothing", "non_negative"}
    )

    solver: Literal["adam"] = "adam"
    iterations: int = Field(200, ge=1, title="Iterations", description="full passes over the scan")
    batch: int = Field(32, ge=1, title="Batch", description="positions per step")
    learning_rate: float = Field(5e-4, gt=0, title="Learning rate", description="rad per step")

    def preview(self) -> Self:
        """Few passes with large steps over every second detector pixel, on our own engine."""
        return self.with_fields(detector_stride=2, iterations=10, learning_rate=3e-3, engine="own")

    def gradients(self, positions: int) -> float:
        """One of each position in each pass."""
        return self.iterations * positions


def adam(run: Run[AdamSettings]) -> Iterator[Frame]:
    """One frame per pass over the scan."""
    problem, s = run.problem, run.settings
    objective = Objective(problem, s, run.control.breathe)
    like = objective.likelihood
    rng = np.random.default_rng(s.seed)
    x = start_volume(run, like)
    optimizer = Adam([x], lr=s.learning_rate)
    step = 0
    if run.state is not None:
        step = int(run.state["step"])
        optimizer.load_state_dict(run.state["optimizer"])
        rng.bit_generator.state = unpack(run.state["rng"])
    while step < run.settings.iterations and run.go_on(step):
        s = run.settings
        if step >= s.iterations:  # fewer were asked for meanwhile
            return
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate
        order, losses = rng.permutation(objective.count), []
        for i in range(0, len(order), s.batch):
            _, x.grad, misfit = objective(x, s, order[i : i + s.batch])
            optimizer.step()
            if s.non_negative:
                x.clamp_(min=0)
            losses.append(misfit)
        run.keep(keeper(step, run, x=x, optimizer=optimizer.state_dict(), rng=pack(rng)))
        info = DescentInfo(learning_rate=s.learning_rate)
        yield frame(run, step, s.iterations, x, float(np.mean(losses)), info)
