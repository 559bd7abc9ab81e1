"""Plan: the steps from a measurement of which little is told to a volume, as plain data.

The command line and the docks carry the same plan out; which steps there are, on which slices, with
which microscope and from which volume is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..reconstruction.preview import preview
from ..reconstruction.settings import SolverSettings
from .automatic import Depth, microscope_known
from .choices import Setup
from .depths import depth_for_refine, depth_of

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from .session import Session

ROUNDS = 1
PASSES = 8  # of a refinement from a sampled volume
_FILES = {"refine": "refined", "dps": "sampled"}


@dataclass(frozen=True)
class LookStep:
    """The microscope estimated by the patterns alone, and taken over where nobody told it."""

    title: str = "what the patterns say"


@dataclass(frozen=True)
class RunStep:
    """One run of a solver.

    Attributes
    ----------
    title : str
        What it finds, for people.
    setup : Setup
        Solver, slices and device; its `microscope` is a file that the user has chosen.
    settings : SolverSettings
    microscope : str
        'told': as the measurement has it, or the chosen file; 'refined': as the newest run before
        it in the plan has refined it.
    start : str
        'nothing', or 'volume': that of the run before it, laid on the slices of this one.
    """

    title: str
    setup: Setup
    settings: SolverSettings
    microscope: Literal["told", "refined"] = "told"
    start: Literal["nothing", "volume"] = "nothing"

    @property
    def solver(self) -> str:
        """Name of the solver."""
        return self.setup.solver


Step = LookStep | RunStep


@dataclass(frozen=True)
class Plan:
    """Steps in their order.

    Attributes
    ----------
    steps : tuple of LookStep or RunStep
    notes : tuple of str
        Why a step is left out, and what is supposed where nobody told it.

    Raises
    ------
    ValueError
        If a step takes something from the steps before it that none of them leaves.
    """

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refined = ran = False
        for step in self.steps:
            if not isinstance(step, RunStep):
                continue
            if step.microscope == "refined" and not refined:
                raise ValueError(f"{step.title}: no step before it refines the microscope")
            if step.start == "volume" and not ran:
                raise ValueError(f"{step.title}: no step before it leaves a volume")
            ran, refined = True, refined or step.solver == "refine"

    @property
    def runs(self) -> tuple[RunStep, ...]:
        """The steps that are runs of a solver."""
        return tuple(step for step in self.steps if isinstance(step, RunStep))


@dataclass(frozen=True)
class Asked:
    """What a user has said of the steps; everything else follows from the measurement.

    Attributes
    ----------
    refine, dps : SolverSettings
        Of the two solvers; elements, if the user has given them, are among those of `dps`.
    rounds : int
        How often the volume is sampled; before every further time the microscope is refined again,
        from that volume.
    setup : Setup
        Slices, device, a refined microscope and preview as far as they were chosen; its solver and
        start do not matter.
    """

    refine: SolverSettings
    dps: SolverSettings
    setup: Setup = field(default_factory=Setup)
    rounds: int = ROUNDS


def asked_in(session: Session, rounds: int = ROUNDS) -> Asked:
    """What the choices of a session say."""
    setup = session.choices.setup
    found = [session.settings("refine"), session.settings("dps")]
    refine, dps = (preview(s) for s in found) if setup.preview else found
    return Asked(refine, dps, setup, rounds)


def plan_of(data: FourDSTEM, asked: Asked) -> Plan:
    """The steps for a measurement: what the patterns say, refinement, sampling.

    There is nothing to refine where the probe is known, or a refined microscope was chosen; and
    with that one the patterns are not asked either, for it belongs to the preparation as it is.

    Parameters
    ----------
    data : FourDSTEM
        As it is prepared now.
    asked : Asked
    """
    chosen, known = asked.setup.microscope, microscope_known(data)
    thin, notes = depth_of(data.calibration, asked.setup)
    coarse = depth_for_refine(thin)
    steps: list[Step] = [] if chosen else [LookStep()]
    if chosen:
        notes = (f"nothing to refine: {Path(chosen).name} is chosen as refined", *notes)
    elif known:
        notes = (f"nothing to refine: {known}", *notes)
    else:
        refine = _setup(asked, "refine", coarse)
        steps.append(RunStep("volume and microscope together", refine, asked.refine))
    steps.append(
        RunStep(
            "with what crystals look like",
            _setup(asked, "dps", thin),
            asked.dps,
            "told" if chosen or known else "refined",
        )
    )
    if not (chosen or known):
        for _ in range(1, asked.rounds):
            steps += _once_more(asked, thin)
    return Plan(tuple(steps), notes)


def _once_more(asked: Asked, depth: Depth) -> tuple[RunStep, RunStep]:
    """The microscope from the volume that was sampled, and the volume again with it.

    Whole atoms fix the volume so well that few parameters of the microscope are then sharply
    determined: what free voxels took up of coma, tilt or the source's size is told apart.
    """
    fields = {"volume": "held", "iterations": PASSES, "position_start": 0}
    if getattr(asked.refine, "probe", "") == "free":
        fields["probe"] = "optics"
    held = asked.refine.with_fields(**fields)
    again = "the microscope again, from that volume"
    return (
        RunStep(again, _setup(asked, "refine", depth), held, "refined", "volume"),
        RunStep(
            "the volume with that microscope", _setup(asked, "dps", depth), asked.dps, "refined"
        ),
    )


def _setup(asked: Asked, solver: str, depth: Depth) -> Setup:
    update = {
        "solver": solver,
        "slices": depth.slices,
        "slice_thickness": depth.slice_thickness,
        "together": depth.together,
        "start": "",
    }
    return asked.setup.model_copy(update=update)


def lacking(data: FourDSTEM) -> str:
    """What a user has to tell before the steps can begin; empty where they can.

    The patterns tell the semi-angle where the detector pixel is told, or the other way round.
    """
    c = data.calibration
    missing = []
    if c.energy is None:
        missing.append("beam energy")
    if c.scan_step is None and data.positions is None:
        missing.append("scan step")
    if c.semi_angle is None and c.pixel_size is None:
        missing.append("semi-angle or detector pixel (the patterns tell the other one)")
    return f"not told: {', '.join(missing)}" if missing else ""


def files_of(runs: Sequence[RunStep], output: Path) -> tuple[Path, ...]:
    """Where the volume of each run goes: the last to `output`, the others to `NAME_refined.h5`."""
    files: list[Path] = []
    for step in runs[:-1]:
        stem = f"{output.stem}_{_FILES.get(step.solver, step.solver)}"
        again = sum(f.stem.startswith(stem) for f in files)
        files.append(output.with_name(f"{stem}{again + 1 if again else ''}.h5"))
    return (*files, output) if runs else ()
