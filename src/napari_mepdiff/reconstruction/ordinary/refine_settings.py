"""What a refinement is asked."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from ..settings import SolverSettings
from .positions_block import Freedom


class RefineSettings(SolverSettings):
    """Volume, probe and positions by mini-batches over the curvature of the misfit."""

    live: ClassVar[frozenset[str]] = frozenset(
        {
            "iterations",
            "batch",
            "volume_step",
            "probe_step",
            "position_step",
            "max_shift",
            "probe_start",
            "position_start",
            "depth_smoothing",
            "inner_potential",
            "non_negative",
        }
    )

    uncertain: ClassVar[bool] = True  # what refines probe and positions costs more
    solver: Literal["refine"] = "refine"
    misfit: Literal["amplitude", "poisson"] = Field("poisson", title="Misfit")
    iterations: int = Field(20, ge=1, title="Iterations", description="full passes over the scan")
    batch: int = Field(32, ge=1, title="Batch", description="positions per step")
    modes: int = Field(
        4,
        ge=1,
        le=24,
        title="Probe modes",
        description="incoherent; more than the probe has are added to it",
    )
    volume: Literal["free", "held"] = Field(
        "free",
        title="Volume",
        description="held: it stays as it was at the start, and only the microscope is refined",
    )
    volume_step: float = Field(
        16.0,
        gt=0,
        title="Step of the volume",
        description="of a Gauss–Newton step of what all slices share; at most 4 for each slice",
    )
    probe: Literal["fixed", "optics", "free"] = Field(
        "free",
        title="Probe",
        description="optics: aberrations and source size; free: these first, then every pixel",
    )
    probe_start: int = Field(
        5, ge=0, title="Free probe from iteration", description="until then its optics are fitted"
    )
    probe_step: float = Field(
        0.5, gt=0, title="Step of the probe", description="of a Gauss–Newton step"
    )
    positions: Freedom = Field(
        "free",
        title="Positions",
        description="affine: scale, shear and rotation; free: slow drift and a shift of each too",
    )
    position_start: int = Field(
        3, ge=0, title="Positions from iteration", description="the volume forms first"
    )
    position_step: float = Field(
        5.0, gt=0, title="Step of the positions", description="of the least Newton step"
    )
    max_shift: float = Field(
        1.0, gt=0, title="Largest shift", description="Å from the given position"
    )
    tilt: bool = Field(
        True,
        title="Beam tilt",
        description="found from how far columns lean, which are then set upright",
    )
    background: bool = Field(
        True, title="Background", description="counts that are not of the specimen, one number"
    )
    depth_smoothing: float = Field(
        0.1,
        ge=0,
        le=1,
        title="Depth smoothing",
        description="share of a blur by a tenth of the depth resolution, each pass",
    )
    narrowest: float = Field(
        0.08, ge=0, le=1, title="Narrowest atom", description="Å, rms: nothing finer is made"
    )
    inner_potential: float = Field(
        15.0,
        ge=0,
        title="Mean inner potential",
        description="V: what is above it has to be earned, as a prior (0: no prior)",
    )
    non_negative: bool = Field(True, title="Non-negative phase")
    held_out: float = Field(
        0.05,
        ge=0,
        le=0.5,
        title="Held out",
        description="share of positions that only judge what the others say",
    )

    def preview(self) -> Self:
        """Fewer passes: every detector pixel is needed."""
        return self.with_fields(iterations=6, probe_start=3, position_start=2)

    def gradients(self, positions: int) -> float:
        """One of each position in each pass, with those of probe and positions."""
        return 1.5 * self.iterations * positions

    def idle(self) -> dict[str, str]:
        """What acts only where something moves."""
        out: dict[str, str] = {}
        if self.volume == "held":
            held = ("volume_step", "depth_smoothing", "narrowest", "inner_potential")
            out |= dict.fromkeys((*held, "non_negative"), "the volume is held")
            out["held_out"] = "a volume that is held would judge for the microscope it is of"
        if self.positions == "fixed":
            names = ("max_shift", "position_start", "position_step")
            out |= dict.fromkeys(names, "the positions are fixed")
        if self.probe == "fixed":
            out |= dict.fromkeys(("probe_start", "probe_step"), "the probe is fixed")
        elif self.probe == "optics":
            out |= dict.fromkeys(("probe_start", "probe_step"), "only the optics are fitted")
        return out

    def position_room(self) -> float:
        """The largest shift, where positions are refined; a volume that is held has its canvas."""
        return 0.0 if self.positions == "fixed" or self.volume == "held" else self.max_shift
