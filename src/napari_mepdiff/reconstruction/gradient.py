"""Adam and L-BFGS on the phase volume: the ordinary solvers, with the paper's settings as defaults (appendix C).

Objective (paper, section 2): ‖f(x) − y‖² + γ‖x‖₁, here divided by the shot-noise expectation of the misfit, so that its
value is about 1 at the truth and γ means the same at every dose, scan and detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..physics.likelihood import Likelihood, LikelihoodFunction, Misfit
from .problem import Problem
from .stream import Frame, Run, SolverSettings


class GradientSettings(SolverSettings):
    """What Adam and L-BFGS share."""

    misfit: Misfit = Field("intensity", title="Misfit")
    l1: float = Field(0.0, ge=0, title="Sparsity γ", description="weight of the mean |x| (per rad)")
    non_negative: bool = Field(False, title="Non-negative phase")
    depth_smoothing: float = Field(
        0.0, ge=0, title="Depth smoothing", description="weight of the mean squared step between slices (per rad²)"
    )
    engine: Literal["own", "ptyrad"] = Field("own", title="Physics engine")


class AdamSettings(GradientSettings):
    """Adam (Kingma and Ba 2014) over mini-batches of positions."""

    solver: Literal["adam"] = "adam"
    iterations: int = Field(200, ge=1, title="Iterations", description="full passes over the scan")
    batch: int = Field(32, ge=1, title="Batch", description="positions per step")
    learning_rate: float = Field(5e-4, gt=0, title="Learning rate", description="rad per step")


class LBFGSSettings(GradientSettings):
    """L-BFGS (Liu and Nocedal 1989)."""

    solver: Literal["lbfgs"] = "lbfgs"
    iterations: int = Field(5, ge=1, title="Iterations")
    evaluations: int = Field(20, ge=1, title="Evaluations", description="of the gradient in an iteration")
    batch: int | None = Field(
        32, ge=1, title="Batch", description="positions per evaluation, drawn anew each time; none: all of them"
    )
    learning_rates: tuple[float, ...] = Field(
        (1.0, 0.1, 0.01), min_length=1, title="Learning rates", description="tried in turn; the best by loss is kept"
    )
    history: int = Field(20, ge=1, title="History")
    line_search: bool = Field(False, title="Line search", description="strong Wolfe; wants all positions")


class Objective:
    """Misfit relative to shot noise plus penalties, with its gradient.

    Parameters
    ----------
    problem : Problem
    settings : GradientSettings
    """

    def __init__(self, problem: Problem, settings: Any) -> None:
        self.likelihood: LikelihoodFunction = problem.likelihood(
            settings.misfit,
            engine=getattr(settings, "engine", "own"),
            detector_stride=settings.detector_stride,
            memory=settings.memory,
        )
        self.noise = shot_noise(self.likelihood, settings.misfit, problem)
        self.count, self.shape = self.likelihood.count, self.likelihood.shape

    def misfit(self, volume: Tensor, batch: Any = None) -> tuple[float, Tensor]:
        """Relative misfit per position and its gradient."""
        loss, gradient = self.likelihood(volume, batch)
        scale = self.noise * (self.count if batch is None else len(batch))
        return loss / scale, gradient / scale

    def __call__(self, volume: Tensor, settings: Any, batch: Any = None) -> tuple[float, Tensor, float]:
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


def adam(run: Run) -> Iterator[Frame]:
    """One frame per pass over the scan."""
    problem, s = run.problem, run.settings
    objective = Objective(problem, s)
    like = objective.likelihood
    rng = np.random.default_rng(s.seed)
    x = start_volume(run, like)
    optimizer = torch.optim.Adam([x], lr=s.learning_rate)
    first = 0
    if run.state is not None:
        first = int(run.state["step"])
        optimizer.load_state_dict(run.state["optimizer"])
        rng.bit_generator.state = _unpack(run.state["rng"])
    for step in range(first + 1, s.iterations + 1):
        if not run.go_on(step - 1):
            return
        s = run.settings
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate
        order, losses = rng.permutation(objective.count), []
        for i in range(0, len(order), s.batch):
            _, x.grad, misfit = objective(x, s, order[i : i + s.batch])
            optimizer.step()
            if s.non_negative:
                x.clamp_(min=0)
            losses.append(misfit)
        run.keep(_keeper(step, run, x=x, optimizer=optimizer.state_dict(), rng=_pack(rng)))
        yield frame(run, step, s.iterations, x, float(np.mean(losses)))


def lbfgs(run: Run) -> Iterator[Frame]:
    """One frame per iteration of each learning rate; the last frame is the best of all by its full loss."""
    problem, s = run.problem, run.settings
    objective = Objective(problem, s)
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
        rng.bit_generator.state = _unpack(state["rng"])
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
                batch = None if size is None or size >= objective.count else rng.choice(
                    objective.count, size, replace=False)
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
            run.keep(_keeper(done, run, x=x, optimizer=optimizer.state_dict(), rng=_pack(rng), start=start,
                             best=best if best is not None else start, best_loss=best_loss))
            shown, value = (best, best_loss) if (last and trial == len(rates) - 1 and best is not None) else (
                volume if finite else start, loss)
            yield frame(run, done, total, shown, value, learning_rate=rates[trial], best_loss=best_loss)
            if not finite:  # this learning rate has diverged: nothing more to gain from it
                done = (trial + 1) * s.iterations
                break


def _lbfgs(x: Tensor, rate: float, s: LBFGSSettings) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        [x], lr=rate, max_iter=s.evaluations, max_eval=s.evaluations, history_size=s.history,
        tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe" if s.line_search else None,
    )


def shot_noise(likelihood: LikelihoodFunction, misfit: Misfit, problem: Problem) -> float:
    """Expected misfit per pattern of a perfect model: the scale that frees losses of dose and detector.

    intensity: Σ n; Poisson: half the expected deviance, amplitude: a quarter, both at the mean pattern.
    """
    from ..evaluation.deviance import expected_deviance

    if isinstance(likelihood, Likelihood):
        mean = torch.stack([likelihood.counts(b).double().mean(0) * len(b) for b in
                            np.array_split(np.arange(likelihood.count), max(1, likelihood.count // 128))]).sum(0)
        counts, weight = mean.cpu().numpy() / likelihood.count, likelihood.weight.double().cpu().numpy()
    else:
        counts = problem.patterns.mean(axis=0, dtype=np.float64)
        weight = np.ones_like(counts) if problem.mask is None else problem.mask
    if misfit == "intensity":
        return float((counts * weight).sum())
    deviance = float((expected_deviance(counts) * weight).sum())
    return deviance / 2 if misfit == "poisson" else deviance / 4


# ---- shared by the solvers --------------------------------------------------------------------------------------
def start_volume(run: Run, like: LikelihoodFunction) -> Tensor:
    """Where a run begins: its saved state, the given start, or nothing."""
    source = run.start if run.state is None else run.state["x"]
    if source is None:
        return torch.zeros(like.shape, device=like.device, dtype=like.real_dtype)
    if tuple(source.shape) != tuple(like.shape):
        raise ValueError(f"the start is {tuple(source.shape)}, the problem wants {tuple(like.shape)}")
    return source.to(device=like.device, dtype=like.real_dtype).clone()


def frame(run: Run, step: int, total: int, volume: Tensor, loss: float, **info: Any) -> Frame:
    """A frame with its own copy of the volume."""
    array = volume.detach().to("cpu", torch.float32).numpy().copy()
    return Frame(step, total, array, float(loss), None, run.seconds, info)


def _keeper(step: int, run: Run, **state: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"step": step, "seconds": run.seconds, **state}


def _positive(x: Tensor, wanted: bool) -> Tensor:
    """Smooth map to x ≥ 0 for L-BFGS, which cannot clamp: ½(x + √(x² + ε²)), with ε = 0.02 rad."""
    return 0.5 * (x + (x * x + _EPS2).sqrt()) if wanted else x


def _through(gradient: Tensor, x: Tensor, wanted: bool) -> Tensor:
    return gradient * 0.5 * (1 + x / (x * x + _EPS2).sqrt()) if wanted else gradient


_EPS2 = 0.02**2  # rad²


def _pack(rng: np.random.Generator) -> str:
    import json

    return json.dumps(rng.bit_generator.state)


def _unpack(text: str) -> Any:
    import json

    return json.loads(text)
