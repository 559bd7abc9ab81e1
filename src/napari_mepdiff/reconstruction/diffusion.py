"""One run of diffusion posterior sampling: its state, one step, the way back. What it is for stands in :mod:`.dps`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..physics.likelihood import Likelihood
from ..prior.condition import Condition
from ..prior.model import Prior
from ..prior.noise import alpha_sigma
from ..prior.sampler import State, advance, level_at
from .guidance import guidance
from .guides import Decoupled, Gradient, Guided
from .occupancy import Occupancy, TooManyAtoms
from .posterior import DataTerm, Grid, pick_stride
from .stream import Companion, Frame, Run, SolverError

FREE = "paper"  # what auto takes where whole atoms cannot be sampled
PASSES, SAMPLES, CHAINS = 4, 8, 64  # of guidance by atoms
WIDE = 128 * 128  # voxels of a slice beyond which auto leaves whole atoms alone: minutes for each sampling
WILD = 15.0  # rms of a scaled volume (crystals: 1 to 3) beyond which a run has diverged
RETRIES = 8
ROOM = 256 * 1024**2  # bytes of kept states
LIT = 0.01  # of the brightest illumination: below it a voxel counts as unscanned


class Diffusion:
    """State and steps of a run.

    Parameters
    ----------
    run : Run

    Raises
    ------
    GridError
        If the prior does not know such voxels.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.problem = run, run.problem
        s = run.settings
        self.device = torch.device(self.problem.device)
        self.prior = Prior.load(s.prior, device=self.problem.device, precision=s.precision)
        self.grid = Grid(self.problem, self.prior)
        self.stride = pick_stride(self.problem, s.detector_stride)
        self.term = DataTerm(self.problem, self.grid, s.misfit, self.stride, s.memory)
        self.step = self.failures = 0
        self.kind = s.guidance
        self.condition: Condition | None = None
        self.occupancy: Occupancy | None = None
        self.rng = torch.Generator().manual_seed(s.seed)
        self.draw = np.random.default_rng(s.seed)
        self.chunk = 1 << 30
        self._kept: dict[int, dict[str, Any]] = {}
        self._clock: dict[str, float] = {}
        self._total = s.steps
        self.unlit: Tensor | None = None
        if self.problem.boundary == "extended":
            self.unlit = self.grid.to_prior(_illumination(self.term.likelihood)[None])[0]
            self.unlit = self.unlit < LIT * self.unlit.max()

    # ---- beginning ---------------------------------------------------------------------------------------------
    def prepare(self) -> Iterator[Frame]:
        """Bring the run to where its first step can be taken; frames of step 0 while an ordinary solution is made."""
        run, s = self.run, self.run.settings
        if run.state is not None:
            self._restore(run.state)
            return
        wants_atoms = bool(s.elements) and s.guidance in ("auto", "atoms")
        if wants_atoms and s.guidance == "auto" and self.problem.shape[1] * self.problem.shape[2] > WIDE:
            wants_atoms = False
            run.control.notes.append(f"guidance by {FREE}, not by atoms: the field is so large that whole atoms would take many "
                                     "minutes; ask for guidance=atoms if that is all right")
        known: Tensor | None = None
        if run.start is not None:
            known = run.start.to(self.device, torch.float32)
            if tuple(known.shape) != tuple(self.problem.shape):
                raise ValueError(f"the start is {tuple(known.shape)}, the problem wants {tuple(self.problem.shape)}")
        elif s.condition != "none" or wants_atoms:
            for frame in self._ordinary():
                known = torch.from_numpy(frame.volume).to(self.device)
                yield frame
            if run.control.stopped:
                return
        if self.kind == "auto":
            self.kind = "atoms" if wants_atoms else FREE
        if self.kind == "atoms":
            assert known is not None
            try:
                self.occupancy = self._columns(known)
            except (TooManyAtoms, ValueError) as error:
                if s.guidance == "atoms":
                    raise
                self.kind = FREE
                run.control.notes.append(f"guidance by {FREE}, not by atoms: {error}")
        if self.occupancy is not None:
            self.occupancy.fit_rest(15)
            self._move_atoms(0.0)
            first = self.occupancy.volume(self.occupancy.mean)
            yield self._frame(first[None], None, 0, self.term.value(self.grid.to_prior(first))[1], {"stage": "first atoms"})
        elif known is not None and s.condition != "none":
            self._tell(known, s.trust)
        self.guide = self._make_guide()
        self.pass_ = 0
        z = torch.randn(self.samples, *self.grid.shape, generator=self.rng).to(self.device)
        self.part = 0.0
        level = self._level(0.0)
        if run.start is not None and self.occupancy is None:
            level = max(level, s.start_log_snr)
            self.part = self._part_of(level)
            alpha, sigma = (float(v) for v in alpha_sigma(torch.tensor(level)))
            z = alpha * self.grid.to_prior(known)[None] + sigma * z  # type: ignore[arg-type]
        self.now = State(z, level)
        self.left = self._steps_of_pass(0)
        self.shown: Tensor = torch.zeros(self.grid.shape) if known is None else self.grid.to_prior(known).cpu()
        self.misfit = self.term.value(self.shown)[1]
        self._keep()

    def _ordinary(self) -> Iterator[Frame]:
        """Non-negative L-BFGS on the Poisson misfit of all positions: the depth sum, and what it knows of depth."""
        from .gradient import LBFGSSettings, lbfgs

        s = self.run.settings
        per = 10
        settings = LBFGSSettings(misfit="poisson", non_negative=True, batch=None, learning_rates=(1.0,), evaluations=per,
                                 iterations=max(1, round(s.evaluations / per)), line_search=True, detector_stride=self.stride,
                                 memory=s.memory)
        for frame in lbfgs(Run(self.problem, settings, Companion(self.run.control), None)):
            yield Frame(0, s.steps, frame.volume, frame.loss, None, self.run.seconds,
                        {"stage": f"ordinary solution, {frame.step} of {frame.total}"})

    def _columns(self, known: Tensor) -> Occupancy:
        s, p = self.run.settings, self.problem
        return Occupancy.from_sum(self._poisson(), known.sum(dim=0).cpu().numpy(), s.elements, p.voxel_size[1:], p.energy,
                                  band_limit=p.band_limit, chains=max(CHAINS, self.samples), seed=s.seed)

    def _poisson(self) -> Likelihood:
        if self.term.misfit == "poisson":
            return self.term.likelihood
        return DataTerm(self.problem, self.grid, "poisson", self.stride, self.run.settings.memory).likelihood

    def _make_guide(self) -> Gradient | Decoupled | None:
        if self.kind in ("paper", "adam"):
            return Gradient(self.samples, adam=self.kind == "adam")
        return Decoupled(self.samples) if self.kind == "decoupled" else None

    @property
    def samples(self) -> int:
        """Latents in the batch."""
        s = self.run.settings
        return s.samples or (SAMPLES if self.kind == "atoms" or (self.kind == "auto" and s.elements) else 1)

    @property
    def passes(self) -> int:
        """From noise to clean."""
        s = self.run.settings
        wanted = s.passes or (PASSES if self.kind == "atoms" else 1)
        return max(1, min(wanted, s.steps // 4))  # a pass of fewer than four steps samples nothing

    # ---- schedule ----------------------------------------------------------------------------------------------
    def _level(self, part: float) -> float:
        s = self.run.settings
        return level_at(part, s.sigma_max, s.sigma_min, s.noise_schedule, s.rho)

    def _part_of(self, level: float) -> float:
        """Where on the schedule a level lies, by bisection."""
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self._level(middle) < level else (low, middle)
        return low

    def _steps_of_pass(self, done: int) -> int:
        """Steps of the pass that begins after so many steps of the run."""
        self._total = self.run.settings.steps
        return max(1, math.ceil((self._total - done) / max(1, self.passes - self.pass_)))

    def _replan(self) -> None:
        """After a change of the number of steps: what is left of this pass keeps its share."""
        steps = self.run.settings.steps
        if steps != self._total:
            before, after = max(1, self._total - self.step), max(1, steps - self.step)
            self.left = max(1, min(after, round(self.left * after / before)))
            if self.pass_ >= self.passes - 1:
                self.left = after
            self._total = steps

    # ---- one step ----------------------------------------------------------------------------------------------
    def advance(self) -> Frame | None:
        """Take a step. None if it diverged and the run was taken back.

        Raises
        ------
        SolverError
            If it diverged and may not, or cannot, be taken back.
        """
        begin, s = time.perf_counter(), self.run.settings
        self._clock = {"network": 0.0, "pullback": 0.0}
        likelihood_before = self.term.seconds
        self._replan()
        if s.misfit != self.term.misfit:
            self.term = DataTerm(self.problem, self.grid, s.misfit, self.stride, s.memory)
            likelihood_before = 0.0
        self.prior.reseed(s.seed * 100_003 + self.step)
        level = self.now.log_snr
        g = s.weight * guidance(s.schedule, level, s.curve)
        size = max(1, round(s.fraction * self.term.count))
        batch = None if size >= self.term.count else np.sort(self.draw.choice(self.term.count, size, replace=False))
        through = self.guide is not None and self.guide.through_network
        x, pull = self._predict(self.now.z, level, through)
        if not torch.isfinite(x).all():
            self._recover("the network returned NaN or infinite values")
            return None
        if self.guide is None:
            guided = Guided(x, self.term.value(x.mean(dim=0), batch)[1], 0.0, 0.0)
        else:
            guided = self.guide(self.term, x, pull, level, g, batch, s.inner)
        new = guided.x.clamp(min=0) if s.non_negative else guided.x
        if self.unlit is not None:  # nothing is measured there: keep it physical
            new = torch.where(self.unlit, new.clamp(min=0), new)
        size_now = float(new.square().mean().sqrt()) if torch.isfinite(new).all() else math.inf
        if not (size_now < WILD and math.isfinite(guided.misfit)):
            self._recover(f"guidance is too strong: the volume's rms is {size_now / self.prior.scale:.3g} rad")
            return None
        ended = self.left <= 1
        final = self.step + 1 >= s.steps
        info: dict[str, Any] = {
            "guidance": self.kind, "sigma": math.exp(-level / 2), "factor": g, "gain": guided.gain, "guidance_norm": guided.norm,
            "pass": self.pass_ + 1, "passes": self.passes, "samples": len(x),
        }
        misfit, shown, answers = guided.misfit, new, self.grid.to_problem(new)
        if ended and self.occupancy is not None:
            part = min(1.0, (self.pass_ + 1) / self.passes)
            self.occupancy.believe(self.grid.to_problem(x), s.odds * part)
            self._move_atoms(part)
        if final or (ended and self.occupancy is not None):
            if self.occupancy is not None:
                # the chains' mean is the answer; they, and the samples of the network, say how sure it is
                answers = torch.cat([self.occupancy.volume(self.occupancy.means), self.grid.to_problem(x)])
                shown = self.grid.to_prior(self.occupancy.volume(self.occupancy.mean))[None]
                misfit = self.term.value(shown[0])[1]
            else:
                misfit = self.term.value(new.mean(dim=0))[1]
        spent = self.term.seconds - likelihood_before
        frame = self._frame(self.grid.to_problem(shown), self.grid.to_problem(x), self.step + 1, misfit, info, level, answers)
        self._proceed(new, ended, final)
        self.step += 1
        self.misfit = misfit
        self._keep()
        seconds = time.perf_counter() - begin
        frame.info.update({"seconds_network": self._clock["network"], "seconds_pullback": self._clock["pullback"],
                           "seconds_likelihood": spent + self._clock.get("atoms", 0.0), "seconds_step": seconds})
        return frame

    def _predict(self, z: Tensor, level: float, through: bool) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """x_θ of all samples and, if wanted, the pullback; in smaller parts where the device's memory is short."""
        begin, seed = time.perf_counter(), self.run.settings.seed * 100_003 + self.step

        def parts() -> list[slice]:
            return [slice(i, min(i + self.chunk, len(z))) for i in range(0, len(z), self.chunk)]

        def again(gradient: Tensor) -> Tensor:
            out = []
            for part in parts():
                self.prior.reseed(seed)
                out.append(self.prior.vjp(z[part], level, self.condition)[1](gradient[part]))
            return torch.cat(out)

        def safe(work: Callable[[], Any]) -> Any:
            while True:
                try:
                    return work()
                except torch.OutOfMemoryError as error:
                    if min(self.chunk, len(z)) <= 1:
                        raise SolverError("the device has not enough memory for one evaluation of the network: crop the field, "
                                          "or run on the CPU") from error
                self.chunk = max(1, min(self.chunk, len(z)) // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

        def forward() -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
            if through and self.chunk >= len(z):
                return self.prior.vjp(z, level, self.condition)
            out = []
            for part in parts():
                self.prior.reseed(seed)
                out.append(self.prior(z[part], level, self.condition))
            return torch.cat(out), None

        x, direct = safe(forward)
        self._clock["network"] += time.perf_counter() - begin
        if not through:
            return x, None

        def pull(gradient: Tensor) -> Tensor:
            start = time.perf_counter()
            first = [direct]

            def work() -> Tensor:
                once = first.pop() if first else None
                return again(gradient) if once is None else once(gradient)

            out = safe(work)
            self._clock["pullback"] += time.perf_counter() - start
            return out

        return x, pull

    def _proceed(self, x: Tensor, ended: bool, final: bool) -> None:
        """The latent of the next step."""
        s, z = self.run.settings, self.now.z
        if final:
            return
        if ended:  # from noise again, with what was learnt in the condition
            self.pass_ += 1
            self.part, level = 0.0, self._level(0.0)
            alpha, sigma = (float(v) for v in alpha_sigma(torch.tensor(level)))
            noise = torch.randn(z.shape, generator=self.rng).to(z.device)
            self.left = self._steps_of_pass(self.step + 1)
            self.now = State(alpha * x + sigma * noise, level)
            return
        self.left -= 1
        part = self.part + (1 - self.part) / self.left
        level = max(self._level(part), self.now.log_snr + 1e-3)
        fresh = torch.randn(z.shape, generator=self.rng).to(z.device) if s.eta else None
        self.part, self.now = part, advance(self.now, x, level, fresh, s.eta)

    def _move_atoms(self, part: float) -> None:
        """Let the data, and the samples so far, choose the slices of the atoms; tell the prior."""
        assert self.occupancy is not None
        begin = time.perf_counter()
        if self.occupancy.settle(part, max(self.run.settings.weight, 1e-6), lambda: not self.run.control.stopped):
            self._tell(self.occupancy.volume(self.occupancy.mean), self.run.settings.trust)
        self._clock["atoms"] = self._clock.get("atoms", 0.0) + time.perf_counter() - begin

    def _tell(self, phase: Tensor, trust: float) -> None:
        """Condition the prior on a volume in rad."""
        known = self.grid.to_prior(phase) / self.prior.scale
        if self.run.settings.condition == "sum" and self.occupancy is None:
            self.condition = Condition.from_sum(known.sum(dim=0).cpu(), known.shape[0])
        else:
            self.condition = Condition.from_volume(known.cpu(), trust)

    # ---- trouble and the way back ------------------------------------------------------------------------------
    def _recover(self, reason: str) -> None:
        s = self.run.settings
        advice = "lower the guidance weight, or check the probe and the calibration"
        if not s.recover or self.failures >= RETRIES or not self._kept:
            tries = f" ({self.failures} restarts with smaller weights did not help)" if self.failures else ""
            raise SolverError(f"step {self.step + 1}: {reason}{tries}; {advice}")
        self.failures += 1
        failures = self.failures
        earlier = [n for n in self._kept if n <= self.step - 2 * failures] or [min(self._kept)]
        at = max(earlier)
        self.run.change(self.step, f"{reason}; back to step {at} with weight {s.weight / 2:g}", weight=s.weight / 2)
        self._take_up(at)
        self.failures = failures

    @property
    def kept(self) -> list[int]:
        """Steps that can be gone back to."""
        return sorted(self._kept)

    def go_back(self, step: int) -> Frame:
        """Restore the state after an earlier step; its volume as a frame."""
        self._take_up(step)
        self.run.keep(self._snapshot)
        return self._frame(self.grid.to_problem(self.shown[None]), None, self.step, self.misfit, {"stage": f"back at step {step}"},
                           self.now.log_snr)

    def _take_up(self, step: int) -> None:
        """Restore a kept state; those after it are of a branch that is given up."""
        self._restore(self._kept[step])
        for later in [n for n in self._kept if n > step]:
            del self._kept[later]

    def _keep(self) -> None:
        self.run.keep(self._snapshot)
        self._kept[self.step] = self._snapshot()
        most = max(1, min(self.run.settings.keep, ROOM // (16 * max(1, self.now.z.numel()))))
        while len(self._kept) > most + 1:  # the start stays
            del self._kept[sorted(self._kept)[1]]

    def _snapshot(self) -> dict[str, Any]:
        return {
            "step": self.step, "seconds": self.run.seconds, "kind": self.kind, "z": self.now.z, "level": self.now.log_snr,
            "before": self.now.before, "h_before": self.now.h_before, "pass": self.pass_, "part": self.part, "left": self.left,
            "planned": self._total, "rng": self.rng.get_state(), "draw": json.dumps(self.draw.bit_generator.state),
            "condition": None if self.condition is None else self.condition.volume,
            "trust": None if self.condition is None else self.condition.depth_correlation,
            "guide": None if self.guide is None else self.guide.state(),
            "occupancy": None if self.occupancy is None else self.occupancy.state(),
            "latest": self.shown, "misfit": self.misfit, "failures": self.failures,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.kind = int(state["step"]), state["kind"]
        x_before = None if state["before"] is None else state["before"].to(self.device)
        self.now = State(state["z"].to(self.device), float(state["level"]), x_before, float(state["h_before"]))
        self.pass_, self.part, self.left = int(state["pass"]), float(state["part"]), int(state["left"])
        self._total = int(state["planned"])
        self.rng.set_state(state["rng"].cpu())
        self.draw.bit_generator.state = json.loads(state["draw"])
        self.condition = None if state["condition"] is None else Condition(state["condition"], state["trust"])
        self.guide = self._make_guide()
        if self.guide is not None:
            self.guide.restore({k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in state["guide"].items()})
        if state["occupancy"] is not None:
            self.occupancy = Occupancy.from_state(self._poisson(), state["occupancy"], self.problem.voxel_size[1:],
                                                  self.problem.energy)
        self.shown, self.misfit, self.failures = state["latest"], float(state["misfit"]), int(state["failures"])
        self._kept.setdefault(self.step, state)

    # ---- what is seen ------------------------------------------------------------------------------------------
    def _frame(self, volumes: Tensor, before: Tensor | None, step: int, misfit: float, info: dict[str, Any],
               level: float | None = None, answers: Tensor | None = None) -> Frame:
        """A frame of the mean of volumes (K, D, H, W) in rad, the x-predictions they came from, and the spread of all answers."""
        mean = volumes.mean(dim=0)
        arrays: dict[str, NDArray[np.float32]] = {}
        if before is not None:
            arrays["x_theta"] = _array(before.mean(dim=0))
        if answers is not None and len(answers) > 1:
            arrays["std"] = _array(answers.std(dim=0))
            arrays["agreement"] = _array(agreement(answers))
        latest = self.grid.to_prior(mean).cpu()
        if step and getattr(self, "shown", None) is not None:
            info["change"] = float((latest - self.shown).square().mean().sqrt()) / self.prior.scale
        self.shown = latest
        info["misfit_per_electron"] = self.term.per_electron(misfit)
        return Frame(step, self.run.settings.steps, _array(mean), misfit, level, self.run.seconds, info, arrays)


def agreement(volumes: Tensor) -> Tensor:
    """Share of the samples (K, D, H, W) that are of the majority's mind whether there is an atom in a voxel, ½ to 1 (D, H, W).

    There is one for a sample where it exceeds half of what is highest over depth in the samples' mean.
    """
    bar = volumes.mean(dim=0).amax(dim=0, keepdim=True) / 2
    share = (volumes > bar.clamp(min=1e-6)).float().mean(dim=0)
    return torch.maximum(share, 1 - share)


def _array(x: Tensor) -> NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).numpy().copy()


def _illumination(likelihood: Likelihood) -> Tensor:
    """Electrons per voxel of the canvas (H, W) over the whole scan."""
    windows = likelihood.model.windows
    intensity = likelihood.probe.abs().square().sum(dim=0)
    padded = torch.zeros(windows.padded, dtype=intensity.dtype, device=intensity.device)
    height, width = windows.window
    for y, x in windows.corner.tolist():
        padded[y : y + height, x : x + width] += intensity
    return windows.fold(padded)
