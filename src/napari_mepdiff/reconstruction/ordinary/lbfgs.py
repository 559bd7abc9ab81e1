"""L-BFGS on the phase volume, with the paper's settings as defaults (appendix C)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..frame import DescentInfo, Frame
from ..optimisers import LBFGS
from ..run import Run
from .objective import GradientSettings, Objective
from .steps import frame, keeper, pack, start_volume, unpack

_EPS2 = 0.02**2  # rad²


class LBFGSSettings(GradientSettings):
    """L-BFGS (Liu and Nocedal 1989)."""

    live: ClassVar[frozenset[str]] = frozenset({"batch", "l1", "depth_smoothing"})

    solver: Literal["lbfgs"] = "lbfgs"
    iterations: int = Field(5, ge=1, title="Iterations")
    evaluations: int = Field(
        20, ge=1, title="Evaluations", description="of the gradient in an iteration"
    )
    batch: int | None = Field(
        32,
        ge=1,
        title="Batch",
        description="positions per evaluation, drawn anew each time; none: all of them",
    )
    learning_rates: tuple[float, ...] = Field(
        (1.0, 0.1, 0.01),
        min_length=1,
        title="Learning rates",
        description="tried in turn; the best by loss is kept",
    )
    history: int = Field(
        20, ge=1, title="History", description="earlier steps that L-BFGS remembers"
    )
    line_search: bool = Field(
        False,
        title="Line search",
        description="strong Wolfe; needs all positions in each evaluation",
    )

    def preview(self) -> Self:
        """Few evaluations of all positions at every second detector pixel, on our own engine."""
        return self.with_fields(
            detector_stride=2,
            iterations=2,
            evaluations=10,
            learning_rates=(1.0,),
            batch=None,
            line_search=True,
            misfit="poisson",
            non_negative=True,
            engine="own",
        )

    def gradients(self, positions: int) -> float:
        """Of a batch in each evaluation, and of all positions after each iteration."""
        batch = positions if self.batch is None else min(self.batch, positions)
        evaluations = self.iterations * self.evaluations * len(self.learning_rates)
        return evaluations * batch + self.iterations * positions

    def held_volumes(self) -> float:
        """Steps and changes of the gradient of its history."""
        return 2.0 * self.history


def lbfgs(run: Run[LBFGSSettings]) -> Iterator[Frame]:
    """One frame per iteration of each learning rate.

    The last frame is the best of all by its full loss.
    """
    problem, s = run.problem, run.settings
    objective = Objective(problem, s, run.control.breathe)
    like = objective.likelihood
    rates, done = s.learning_rates, 0
    total = len(rates) * s.iterations
    best_loss, best = float("inf"), None
    rng = np.random.default_rng(s.seed)
    start = start_volume(run, like)
    state = run.state
    if state is not None:
        done, best_loss = int(state["step"]), float(state["best_loss"])
        best = state["best"].to(like.device)
        start = state["start"].to(like.device)
        rng.bit_generator.state = unpack(state["rng"])
    for trial in range(done // s.iterations if done < total else len(rates), len(rates)):
        resumed = state is not None and done % s.iterations > 0
        x = state["x"].to(like.device).clone() if resumed and state is not None else start.clone()
        optimizer = _lbfgs(x, rates[trial], s)
        if resumed and state is not None:
            optimizer.load_state_dict(state["optimizer"])
        state = None
        for iteration in range(done % s.iterations, s.iterations):
            if not run.go_on(done):
                return

            def closure(x: Tensor = x) -> float:
                size = run.settings.batch
                batch = (
                    None
                    if size is None or size >= objective.count
                    else rng.choice(objective.count, size, replace=False)
                )
                value, gradient, _ = objective(_positive(x, s.non_negative), run.settings, batch)
                x.grad = _through(gradient, x, s.non_negative)
                return value

            optimizer.step(closure)  # type: ignore[arg-type]
            done += 1
            volume = _positive(x, s.non_negative)
            last = iteration == s.iterations - 1
            finite = bool(torch.isfinite(volume).all())
            loss = objective.misfit(volume)[0] if finite else float("inf")
            if finite and loss < best_loss:
                best_loss, best = loss, volume.clone()
            run.keep(
                keeper(
                    done,
                    run,
                    x=x,
                    optimizer=optimizer.state_dict(),
                    rng=pack(rng),
                    start=start,
                    best=best if best is not None else start,
                    best_loss=best_loss,
                )
            )
            shown, value = (
                (best, best_loss)
                if (last and trial == len(rates) - 1 and best is not None)
                else (volume if finite else start, loss)
            )
            info = DescentInfo(learning_rate=rates[trial], best_loss=best_loss)
            yield frame(run, done, total, shown, value, info)
            if not finite:  # this learning rate has diverged: nothing more to gain from it
                done = (trial + 1) * s.iterations
                break


def _lbfgs(x: Tensor, rate: float, s: LBFGSSettings) -> LBFGS:
    return LBFGS(
        [x],
        lr=rate,
        max_iter=s.evaluations,
        max_eval=s.evaluations,
        history_size=s.history,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe" if s.line_search else None,
    )


def _positive(x: Tensor, wanted: bool) -> Tensor:
    """Smooth map to x ≥ 0 for L-BFGS, which cannot clamp: ½(x + √(x² + ε²)), with ε = 0.02 rad."""
    return 0.5 * (x + (x * x + _EPS2).sqrt()) if wanted else x


def _through(gradient: Tensor, x: Tensor, wanted: bool) -> Tensor:
    return gradient * 0.5 * (1 + x / (x * x + _EPS2).sqrt()) if wanted else gradient
