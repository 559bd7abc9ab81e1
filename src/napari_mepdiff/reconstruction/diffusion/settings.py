"""DPSSettings: what diffusion posterior sampling is asked."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ...physics.misfit import Misfit
from ...prior.model import Precision
from ...prior.sampler import Schedule
from ..settings import SolverSettings
from .guidance import FREE_VOXELS, GuidanceKind, GuidanceSchedule
from .idle import ConditionKind, idle_fields


class DPSSettings(SolverSettings):
    """Settings of diffusion posterior sampling."""

    live: ClassVar[frozenset[str]] = frozenset(
        {
            "weight",
            "schedule",
            "curve",
            "misfit",
            "fraction",
            "inner",
            "adam_strength",
            "steps",
            "noise_schedule",
            "sigma_max",
            "sigma_min",
            "rho",
            "eta",
            "trust",
            "odds",
            "non_negative",
            "recover",
        }
    )

    solver: Literal["dps"] = "dps"
    detector_stride: int = Field(
        2,
        ge=1,
        le=2,
        title="Detector stride",
        description="2: every second detector pixel wherever that loses nothing; 1: all of them",
    )
    guidance: GuidanceKind = Field(
        "auto",
        title="Guidance",
        description="how the patterns steer. atoms: whole atoms, needs the elements; newton, "
        "decoupled, adam, paper: free voxels; auto: atoms where the elements are given and the "
        "field is small enough, else newton",
    )
    elements: tuple[str, ...] = Field(
        (), title="Elements", description="chemical symbols in the specimen, e.g. Sr, Ti, O"
    )
    weight: float = Field(
        1.0,
        ge=0,
        le=1e4,
        title="Guidance weight",
        description="1: as strong as the rule of the chosen guidance says, whatever dose, scan and "
        "detector; with whole atoms it divides the temperature at which atoms change slices; with "
        "paper choose about 1e-5; 1e-4 was far off the data or fitted noise, 1e-3 diverged",
    )
    schedule: GuidanceSchedule = Field(
        "shifted-sigmoid",
        title="Guidance schedule",
        description="how the weight changes from noise to clean (with λ)",
    )
    curve: tuple[tuple[float, float], ...] = Field(
        (), title="Curve", description="points (λ, g) of a schedule of your own"
    )
    misfit: Misfit = Field(
        "poisson",
        title="Misfit",
        description="between measured and modelled patterns, of the guidance on free voxels",
    )
    fraction: float = Field(
        0.25,
        gt=0,
        le=1,
        title="Scan positions",
        description="fraction of the scan that a step looks at, drawn anew each time",
    )
    inner: int = Field(
        3,
        ge=1,
        le=50,
        title="Likelihood steps",
        description="L-BFGS steps towards the patterns, in each step of decoupled guidance",
    )
    adam_strength: float = Field(
        0.04,
        ge=0,
        le=10,
        title="Adam strength",
        description="change of each voxel of the noisy volume per step, where its noise is 1; "
        "authors' best: 0.02 to 0.06 at 100 steps, more with fewer steps",
    )
    adam_beta1: float = Field(
        0.5, ge=0, lt=1, title="Adam β₁", description="memory of the direction, per step"
    )
    adam_beta2: float = Field(
        0.6, ge=0, lt=1, title="Adam β₂", description="memory of the squared size, per step"
    )
    steps: int = Field(
        100,
        ge=2,
        le=10000,
        title="Steps",
        description="evaluations of the network, over all passes",
    )
    passes: int | None = Field(
        None,
        ge=1,
        le=50,
        title="Passes",
        description="times from noise to clean; none: 4 with whole atoms, else 1",
    )
    noise_schedule: Schedule = Field(
        "poly-exponential", title="Noise schedule", description="how the noise falls over the steps"
    )
    sigma_max: float = Field(
        800.0, gt=0, title="Largest σ", description="noise over signal at the start"
    )
    sigma_min: float = Field(
        0.1, gt=0, title="Smallest σ", description="noise over signal at the end"
    )
    rho: float | None = Field(
        None, gt=0, title="ρ", description="bend of the noise schedule; none: 1, or 7 for karras"
    )
    eta: float = Field(
        1.0,
        ge=0,
        le=1,
        title="Noise η",
        description="fresh noise in each step: 1 as in the paper; 0 none, the same path each time",
    )
    condition: ConditionKind = Field(
        "volume",
        title="Condition",
        description="what of a short ordinary solution the network is given: nothing, its sum over "
        "depth, or the whole volume",
    )
    trust: float = Field(
        0.6,
        ge=0,
        le=1,
        title="Trust",
        description="expected depth correlation of that volume with the specimen",
    )
    evaluations: int = Field(
        40,
        ge=5,
        le=500,
        title="Evaluations",
        description="of the misfit's gradient, for the ordinary solution",
    )
    odds: float = Field(
        0.75,
        ge=0,
        title="Odds",
        description="log-odds of an atom where all samples of the network have one (whole atoms)",
    )
    samples: int | None = Field(
        None,
        ge=1,
        le=256,
        title="Samples",
        description="volumes drawn at once, for their spread; none: 8 with whole atoms, else 1",
    )
    start_log_snr: float = Field(
        -3.0,
        ge=-20,
        le=20,
        title="λ of a given start",
        description="log signal-to-noise ratio after noise is added to a volume to begin from",
    )
    non_negative: bool = Field(
        False, title="Non-negative phase", description="set negative voxels to 0 in every step"
    )
    recover: bool = Field(
        True,
        title="Recover",
        description="from divergence: back to an earlier state, with half the weight; a tenth with "
        "the paper's guidance",
    )
    prior: str = Field(
        "compact", title="Prior", description="name of a network that is installed, or a file"
    )
    precision: Precision = Field(
        "auto", title="Precision of the network", description="auto: bf16 where that is fast"
    )
    keep: int = Field(
        200, ge=0, title="Kept states", description="latest steps that one can go back to"
    )

    @field_validator("elements")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from ..ordinary.atomic import known_elements

        return known_elements(value)

    @model_validator(mode="after")
    def _consistent(self) -> DPSSettings:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"the smallest σ ({self.sigma_min:g}) must be below the largest "
                f"({self.sigma_max:g})"
            )
        if self.schedule == "curve" and not self.curve:
            raise ValueError("a free schedule needs a curve: at least one point (λ, g)")
        if any(b[0] <= a[0] for a, b in zip(self.curve, self.curve[1:], strict=False)):
            raise ValueError("the points of the curve must have rising λ")
        if self.guidance == "atoms" and not self.elements:
            raise ValueError(
                "guidance by atoms needs the elements of the specimen, e.g. elements=Sr,Ti,O; "
                "without them choose auto, newton, decoupled, adam or paper"
            )
        if self.guidance == "paper" and self.elements:
            raise ValueError(
                "the paper's guidance knows nothing of elements: leave them out, or choose the "
                "guidance atoms"
            )
        return self

    def preview(self) -> Self:
        """Newton guidance, given the volume of a short ordinary run.

        A picture after about a second, an answer after ten.
        """
        return self.with_fields(
            detector_stride=2,
            fraction=0.15,
            steps=30,
            passes=1,
            samples=1,
            evaluations=20,
            guidance="newton",
            prior="compact",
            misfit="poisson",
        )

    # ---- what acts -----------------------------------------------------------------------------
    def idle(self) -> dict[str, str]:
        """Fields without effect beside the others' present values, and why.

        Where ``auto`` has still to choose between whole atoms and free voxels, those that neither
        choice uses.
        """
        if self.guidance != "auto":
            return self.idle_with(self.guidance)
        free = self.idle_with(FREE_VOXELS)
        if not self.elements:
            free.pop("elements", None)  # giving some is what chooses whole atoms
            return free
        atoms = self.idle_with("atoms")
        return {name: reason for name, reason in free.items() if name in atoms}

    def idle_with(self, kind: GuidanceKind) -> dict[str, str]:
        """The same once it is known which kind of guidance acts."""
        return idle_fields(kind, self.condition, self.schedule, self.noise_schedule)

    def acting(self, kind: GuidanceKind | None = None) -> dict[str, Any]:
        """What acts, as JSON has it: for records, which must not claim what had no effect.

        Parameters
        ----------
        kind : str, optional
            The guidance that ``auto`` came to, where that is known.
        """
        idle = self.idle() if kind is None else self.idle_with(kind)
        return {n: v for n, v in self.model_dump(mode="json").items() if n not in idle}


def of_earlier_version(fields: dict[str, Any]) -> dict[str, Any]:
    """Settings that a version with records of the first form wrote, in the words of today.

    What it called ``paper`` is ``newton`` now.

    Raises
    ------
    ValueError
        If they ask for its Adam-guidance, a rule that is gone.
    """
    kind = fields.get("guidance")
    if kind == "adam":
        raise ValueError(
            "this run was guided by an earlier rule of Adam-guidance that this version does not "
            "have: it cannot be played again; choose adam (after its authors' code) or newton"
        )
    return {**fields, "guidance": "newton"} if kind == "paper" else dict(fields)
