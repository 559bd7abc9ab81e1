"""Sampling: the state of a run between two steps, how it is kept, and the way back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...prior.condition import Condition
from ...prior.process import alpha_sigma
from ...prior.sampler import State, advance, window_seed
from ..atoms.occupancy import Occupancy
from ..frame import Frame
from ..run import KEPT, SolverError
from ..run import State as Kept
from .atoms import move_atoms, restored_atoms
from .condition import condition_on
from .data_term import VolumeMisfit
from .frames import make_frame
from .guidance import GuidanceKind
from .guide import Guided, Pullback
from .guides import after_divergence, make_guide
from .info import DiffusionInfo
from .kept import KeptStates
from .levels import Levels, passes
from .posterior import Posterior
from .settings import DPSSettings

DIVERGED_RMS = 15.0  # of a scaled volume (crystals: 1 to 3) beyond which a run has diverged
RETRIES = 8
REACH = 12  # steps before it that a checkpoint keeps: three divergences in a row go back so far


class Diverged(ArithmeticError):
    """A step whose result is no volume."""


class Sampling:
    """All that a run is between two steps.

    Attributes
    ----------
    now : State
        z, λ and what the sampler remembers.
    step : int
        Steps done.
    condition : Condition or None
        What the network is given.
    occupancy : Occupancy or None
        Whole atoms.
    shown : Tensor
        The volume that was shown last, scaled, on the CPU.
    failures : int
        Divergences so far.
    left_out : int
        The latest step whose state the run that this one resumes had, and its checkpoint has not.
    """

    def __init__(
        self,
        posterior: Posterior,
        kind: GuidanceKind,
        now: State,
        levels: Levels,
        shown: Tensor,
        *,
        rng: torch.Generator | None = None,
        condition: Condition | None = None,
        occupancy: Occupancy | None = None,
        misfit: float = math.nan,
    ) -> None:
        s = posterior.run.settings
        self.posterior, self.run, self.kind = posterior, posterior.run, kind
        self.now, self.levels, self.shown, self.misfit = now, levels, shown, misfit
        self.rng = rng or torch.Generator().manual_seed(s.seed)
        self.draw = np.random.default_rng(s.seed)
        self.condition, self.occupancy = condition, occupancy
        self.guide = make_guide(kind, s, len(now.z))
        self.step = self.failures = self.left_out = 0
        self.kept = KeptStates()

    # ---- what a step asks for ------------------------------------------------------------------
    def renewed(self) -> DPSSettings:
        """The settings that hold from this step on, after what they changed is changed."""
        s = self.run.settings
        self.levels.replan(s, self.kind, self.step)
        self.posterior.require_misfit(self.kind)
        return s

    def likelihood(self) -> VolumeMisfit:
        """The data term of the positions of this step."""
        term = self.posterior.term
        share = self.run.settings.fraction
        if self.kind in ("atoms", "paper"):  # where it does not act; atoms only show this misfit
            share = 1.0 if self.kind == "paper" else float(_default("fraction"))
        size = max(1, round(share * term.count))
        batch: NDArray[np.int64] | None = None
        if size < term.count:
            batch = np.sort(self.draw.choice(term.count, size, replace=False))
        return term.of(batch)

    def predict(self, z: Tensor, log_snr: float) -> tuple[Tensor, Pullback | None]:
        """x_θ(z, λ) and, where the guide wants it, g ↦ (∂x_θ/∂z)ᵀ g.

        Raises
        ------
        Diverged
            If the prediction is not finite.
        """
        s, known = self.run.settings, self.condition
        if known is not None and known.depth_correlation not in (None, s.trust):
            self.condition = known = replace(known, depth_correlation=s.trust)
        seed, through = window_seed(s.seed, self.step), self.guide.through_network
        x, pull = self.posterior.network(z, log_snr, known, seed, through)
        if not torch.isfinite(x).all():
            raise Diverged("the network returned NaN or infinite values")
        return x, pull

    def admissible(self, guided: Guided) -> Tensor:
        """x′ kept physical where it is asked for, or where nothing was measured.

        Raises
        ------
        Diverged
            If it is no volume any more.
        """
        x = guided.x.clamp(min=0) if self.run.settings.non_negative else guided.x
        dark = self.posterior.dark
        if dark is not None:
            x = torch.where(dark, x.clamp(min=0), x)
        size = float(x.square().mean().sqrt()) if torch.isfinite(x).all() else math.inf
        # the paper's x′ may be far away at high noise, where little of it enters the latent
        share = _alpha_sigma(self.now.log_snr)[0] if self.kind == "paper" else 1.0
        if not (size * share < DIVERGED_RMS and math.isfinite(guided.misfit)):
            phase = size / self.posterior.prior.scale
            raise Diverged(f"guidance is too strong: the volume's rms is {phase:.3g} rad")
        return x

    def clean(self, x: Tensor, shift: Tensor | None) -> Tensor:
        """The answer at the end of a pass: the shift of a latent whose α(λ_next) is 1."""
        return x if shift is None else x + shift / _alpha_sigma(self.now.log_snr)[0]

    def advance(self, x: Tensor, shift: Tensor | None) -> None:
        """z at the next level: by the sampler within a pass, from noise again after one."""
        s, now = self.run.settings, self.now
        if self.levels.ends:
            level = self.levels.anew(s, self.kind, self.step + 1)
            alpha, sigma = _alpha_sigma(level)
            self.now = State(alpha * self.clean(x, shift) + sigma * self._noise(), level)
            return
        level = self.levels.following(now.log_snr, s)
        self.now = advance(now, x, level, self._noise() if s.eta else None, s.eta)
        if shift is not None:
            ratio = _alpha_sigma(level)[0] / _alpha_sigma(now.log_snr)[0]
            self.now = replace(self.now, z=self.now.z + shift * ratio)

    def move_atoms(self, phase: Tensor) -> None:
        """At the end of a pass: atoms move, in the light of the samples (K, D, H, W) in rad.

        The network is then given where they are.
        """
        assert self.occupancy is not None
        s, atoms = self.run.settings, self.occupancy
        part = min(1.0, (self.levels.number + 1) / passes(s, self.kind))
        atoms.believe(phase, s.odds * part)
        move_atoms(self.posterior, atoms, part)
        self.condition = condition_on(self.posterior, atoms.volume(atoms.mean), s.trust, "volume")

    def _noise(self) -> Tensor:
        z = self.now.z
        return torch.randn(z.shape, generator=self.rng).to(z.device)

    # ---- trouble and the way back --------------------------------------------------------------
    def recover(self, trouble: Diverged) -> None:
        """Back to a good state, on with half the weight (a tenth with the paper's guidance).

        Raises
        ------
        SolverError
            If that is not wanted, or did not help before.
        """
        s = self.run.settings
        less, advice = after_divergence(self.kind)
        if not s.recover or self.failures >= RETRIES or not self.kept:
            tries = (
                f" ({self.failures} restarts with smaller weights did not help)"
                if self.failures
                else ""
            )
            raise SolverError(
                f"step {self.step + 1}: {trouble}{tries}; lower the guidance weight (it was "
                f"{s.weight:g}{advice}), or check the probe and the calibration"
            )
        failures = self.failures + 1
        wanted = max(0, self.step - 2 * failures)
        at = self.kept.before(wanted)
        if at > wanted or 0 < wanted <= self.left_out:  # another state than without interruption
            raise SolverError(
                f"step {self.step + 1}: {trouble}; the state of step {wanted}, to try a smaller "
                "weight from, was not kept when the run was interrupted: begin it anew "
                f"with a lower guidance weight (it was {s.weight:g}{advice})"
            )
        weight = s.weight / less
        reason = f"{trouble}; back to step {at} with weight {weight:g}"
        self.run.change(self.step, reason, weight=weight)
        self.take_up(at)
        self.failures = failures

    def go_back(self, step: int) -> Frame:
        """Restore the state after an earlier step; its volume as a frame."""
        self.take_up(step)
        self.run.keep(self.snapshot)
        volume = self.posterior.grid.to_problem(self.shown[None])
        info = DiffusionInfo(stage=f"back at step {step}")
        frame, self.shown = make_frame(
            self.posterior,
            self.step,
            volume,
            self.misfit,
            info,
            last=self.shown if self.step else None,
            log_snr=self.now.log_snr,
        )
        return frame

    def take_up(self, step: int) -> None:
        """Restore a kept state; those after it are of a branch that is given up."""
        self.restore(self.kept[step])
        self.kept.forget_after(step)

    def keep(self, step: int) -> None:
        """Keep the state after the step just done."""
        self.step = step
        self.run.keep(self.snapshot)
        self.kept.add(self.step, self.state(), self.run.settings.keep)

    def snapshot(self) -> Kept:
        """For a checkpoint: the state, and those before it that a divergence may ask for."""
        before, left_out = self.kept.near(self.step, REACH)
        return {**self.state(), KEPT: before, "left_out": max(left_out, self.left_out)}

    def resume(self, state: Kept) -> None:
        """From what :meth:`snapshot` gave."""
        most = self.run.settings.keep
        # an earlier version's has none: all that it had are left out
        before: dict[int, Kept] = state.pop(KEPT, {})
        self.left_out = int(state.pop("left_out", int(state["step"]) - 1))
        self.restore(state)
        for step in sorted(before):
            self.kept.add(step, before[step], most)
        self.kept.add(self.step, self.state(), most)

    def state(self) -> Kept:
        """Between two steps."""
        return {
            "step": self.step,
            "seconds": self.run.seconds,
            "kind": self.kind,
            "z": self.now.z,
            "log_snr": self.now.log_snr,
            "before": self.now.before,
            "h_before": self.now.h_before,
            "levels": self.levels.state(),
            "rng": self.rng.get_state(),
            "draw": json.dumps(self.draw.bit_generator.state),
            "condition": None if self.condition is None else self.condition.volume,
            "trust": None if self.condition is None else self.condition.depth_correlation,
            "guide": self.guide.state(),
            "occupancy": None if self.occupancy is None else self.occupancy.state(),
            "latest": self.shown,
            "misfit": self.misfit,
            "failures": self.failures,
        }

    def restore(self, state: Kept) -> None:
        """The inverse of :meth:`state`."""
        device = self.posterior.device
        before = None if state["before"] is None else state["before"].to(device)
        self.now = State(
            state["z"].to(device), float(state["log_snr"]), before, float(state["h_before"])
        )
        self.step, self.kind = int(state["step"]), state["kind"]
        self.levels = Levels(**state["levels"])
        self.rng.set_state(state["rng"].cpu())
        self.draw.bit_generator.state = json.loads(state["draw"])
        known = state["condition"]
        self.condition = None if known is None else Condition(known, state["trust"])
        self.guide = make_guide(self.kind, self.run.settings, len(self.now.z))
        self.guide.restore(
            {k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["guide"].items()}
        )
        atoms = state["occupancy"]
        self.occupancy = None if atoms is None else restored_atoms(self.posterior, atoms)
        self.shown, self.misfit = state["latest"], float(state["misfit"])
        self.failures = int(state["failures"])


def _alpha_sigma(log_snr: float) -> tuple[float, float]:
    alpha, sigma = alpha_sigma(torch.tensor(log_snr))
    return float(alpha), float(sigma)


def _default(name: str) -> float:
    return float(DPSSettings.model_fields[name].default)
