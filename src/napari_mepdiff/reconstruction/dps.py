"""Diffusion posterior sampling: the prior's sampler, steered by the data at each noise level (paper, sections 2 and 3).

    z ~ N(0, 1);  for λ from noise to clean:  x_θ = prior(z, λ),  x′ = guide(x_θ),  z ← DPM-Solver++(z, x′)

Guidance is of four kinds: ``paper`` and ``adam`` through the network, ``decoupled`` without it (:mod:`.guides`), and ``atoms``,
which needs the elements of the specimen and moves whole atoms between slices (:mod:`.occupancy`): it samples in several passes;
after each, the data choose the slices of the atoms in the light of the samples, the prior is told, and sampling begins anew.

Steps can be watched, changed, taken back and branched from; see :class:`~.stream.Control`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..physics.likelihood import Misfit
from ..prior.model import Precision
from ..prior.sampler import Schedule
from .guidance import GuidanceSchedule
from .stream import Frame, Run, SolverSettings

GuidanceKind = Literal["auto", "atoms", "decoupled", "adam", "paper"]


class DPSSettings(SolverSettings):
    """Settings of diffusion posterior sampling. Those in ``fixed`` hold for a whole run, the others can change while it goes on."""

    fixed: ClassVar[frozenset[str]] = frozenset({
        "seed", "memory", "detector_stride", "guidance", "elements", "condition", "evaluations", "samples", "start_log_snr",
        "prior", "precision", "passes", "keep",
    })

    solver: Literal["dps"] = "dps"
    detector_stride: int = Field(
        2, ge=1, le=2, title="Detector stride", description="2: every second pixel wherever that loses nothing; 1: all of them"
    )
    guidance: GuidanceKind = Field(
        "auto", title="Guidance", description="atoms: whole atoms, needs the elements; decoupled, adam, paper: free voxels; "
        "auto: atoms where the elements are given, else the best of the others")
    elements: tuple[str, ...] = Field(
        (), title="Elements", description="chemical symbols in the specimen, e.g. Sr, Ti, O")
    weight: float = Field(1.0, ge=0, le=1e4, title="Guidance weight",
                          description="1: a full step of the data's own size; does not depend on dose, scan or detector")
    schedule: GuidanceSchedule = Field("shifted-sigmoid", title="Guidance schedule", description="how the weight changes with λ")
    curve: tuple[tuple[float, float], ...] = Field((), title="Curve", description="(λ, g) points of a free schedule")
    misfit: Misfit = Field("poisson", title="Misfit", description="of the guidance on free voxels")
    fraction: float = Field(0.25, gt=0, le=1, title="Positions", description="fraction of the scan in each step, drawn anew")
    inner: int = Field(3, ge=1, le=50, title="Likelihood steps", description="in each step of the decoupled guidance")
    steps: int = Field(100, ge=2, le=10000, title="Steps", description="evaluations of the network, over all passes")
    passes: int | None = Field(None, ge=1, le=50, title="Passes", description="from noise to clean; none: 4 for atoms, else 1")
    noise_schedule: Schedule = Field("poly-exponential", title="Noise schedule")
    sigma_max: float = Field(800.0, gt=0, title="Largest σ", description="noise over signal at the start")
    sigma_min: float = Field(0.1, gt=0, title="Smallest σ", description="noise over signal at the end")
    rho: float | None = Field(None, gt=0, title="ρ", description="of the noise schedule; none: 1, or 7 for karras")
    eta: float = Field(1.0, ge=0, le=1, title="Noise η", description="1: stochastic, the paper's; 0: deterministic")
    condition: Literal["none", "sum", "volume"] = Field(
        "volume", title="Condition", description="what of an ordinary solution the prior is told: nothing, its sum, all of it")
    trust: float = Field(0.6, ge=0, le=1, title="Trust", description="depth correlation expected of that volume")
    evaluations: int = Field(40, ge=5, le=500, title="Evaluations", description="gradients of the ordinary solution")
    odds: float = Field(0.75, ge=0, title="Odds", description="log-odds of an atom where all samples have one (guidance by atoms)")
    samples: int | None = Field(None, ge=1, le=256, title="Samples", description="answers at once; none: 8 for atoms, else 1")
    start_log_snr: float = Field(-3.0, ge=-20, le=20, title="λ of a warm start", description="noise that a given volume gets")
    non_negative: bool = Field(False, title="Non-negative phase")
    recover: bool = Field(
        True, title="Recover", description="from divergence: back to the last good state, with half the weight")
    prior: str = Field("compact", title="Prior", description="name of one that is installed, or a file")
    precision: Precision = Field("auto", title="Precision of the network")
    keep: int = Field(200, ge=0, title="Kept states", description="steps that one can go back to")

    @field_validator("elements")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from .atomic import known_elements

        return known_elements(value)

    @model_validator(mode="after")
    def _consistent(self) -> DPSSettings:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"the smallest σ ({self.sigma_min:g}) must be below the largest ({self.sigma_max:g})")
        if self.schedule == "curve" and not self.curve:
            raise ValueError("a free schedule needs a curve: at least one point (λ, g)")
        if any(b[0] <= a[0] for a, b in zip(self.curve, self.curve[1:], strict=False)):
            raise ValueError("the points of the curve must have rising λ")
        if self.guidance == "atoms" and not self.elements:
            raise ValueError("guidance by atoms needs the elements of the specimen, e.g. elements=Sr,Ti,O; without them choose "
                             "auto, decoupled, adam or paper")
        return self


def dps(run: Run) -> Iterator[Frame]:
    """One frame per step, and some of step 0 while the ordinary solution of the condition is made.

    Besides the volume, frames carry (``info``) λ, σ, g, the misfit of x_θ over shot noise and per electron, how far guidance moved
    it, the change since the last step and the seconds spent in network, pullback and likelihood; and (``arrays``, rad) ``x_theta``,
    the mean x-prediction before guidance, with several samples also their ``std`` and ``agreement``.
    """
    from .diffusion import Diffusion

    work = Diffusion(run)
    yield from work.prepare()
    while work.step < run.settings.steps:
        if not run.go_on(work.step):
            return
        earlier = run.back(work.step, work.kept)
        if earlier is not None:
            yield work.go_back(earlier)
            continue
        if work.step >= run.settings.steps:  # fewer were asked for meanwhile
            return
        frame = work.advance()
        if frame is not None:
            yield frame
