"""Levels: the noise levels λ of a run's steps, over one or more passes from noise to clean."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ...prior.sampler import level_at
from .guidance import GuidanceKind
from .settings import DPSSettings

PASSES, SAMPLES = 4, 8  # with whole atoms


def passes(s: DPSSettings, kind: GuidanceKind) -> int:
    """How often a run goes from noise to clean; a pass of fewer than four steps samples nothing."""
    if kind == "paper":
        return 1
    wanted = s.passes or (PASSES if kind == "atoms" else 1)
    return max(1, min(wanted, s.steps // 4))


def samples(s: DPSSettings, kind: GuidanceKind) -> int:
    """Latents in the batch."""
    return s.samples or (SAMPLES if kind == "atoms" else 1)


def level(part: float, s: DPSSettings) -> float:
    """λ at a part of a pass, 0 (noise) to 1 (clean)."""
    return level_at(part, s.sigma_max, s.sigma_min, s.noise_schedule, s.rho)


def part_of(log_snr: float, s: DPSSettings) -> float:
    """Where on the schedule a level lies, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if level(middle, s) < log_snr else (low, middle)
    return low


@dataclass
class Levels:
    """Where a run stands on its way.

    Attributes
    ----------
    planned : int
        Steps of the whole run, as last asked for.
    number : int
        Passes that are done.
    part : float
        Of the present pass, 0 to 1.
    left : int
        Steps of the present pass, this one included.
    """

    planned: int
    number: int = 0
    part: float = 0.0
    left: int = 1

    def begin_pass(self, s: DPSSettings, kind: GuidanceKind, done: int) -> None:
        """Share out the steps that are left after so many."""
        self.planned = s.steps
        self.left = max(1, math.ceil((s.steps - done) / max(1, passes(s, kind) - self.number)))

    def replan(self, s: DPSSettings, kind: GuidanceKind, done: int) -> None:
        """After a change of the number of steps: what is left of this pass keeps its share."""
        if s.steps == self.planned:
            return
        before, after = max(1, self.planned - done), max(1, s.steps - done)
        self.left = max(1, min(after, round(self.left * after / before)))
        if self.number >= passes(s, kind) - 1:
            self.left = after
        self.planned = s.steps

    @property
    def ends(self) -> bool:
        """Whether the present step is the last of its pass."""
        return self.left <= 1

    def following(self, log_snr: float, s: DPSSettings) -> float:
        """Go on within the pass: λ of the next step."""
        self.left -= 1
        self.part += (1 - self.part) / self.left
        return max(level(self.part, s), log_snr + 1e-3)

    def anew(self, s: DPSSettings, kind: GuidanceKind, done: int) -> float:
        """From noise again: λ of the first step of the next pass."""
        self.number += 1
        self.part = 0.0
        self.begin_pass(s, kind, done)
        return level(0.0, s)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)
