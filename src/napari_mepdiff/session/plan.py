"""Plan: the steps from a measurement of which little is told to a volume, as plain data.

The command line and the docks carry the same plan out; which steps there are, on which slices, with
which microscope and from which volume is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..measurement.dataset import Calibration
from ..reconstruction.assumptions import slicing
from ..reconstruction.preview import preview
from ..reconstruction.registry import SOLVERS
from ..reconstruction.settings import SolverSettings
from .automatic import TOGETHER, Depth, depth_for_prior, microscope_known
from .choices import Setup

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from .session import Session

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
    setup : Setup
        Slices, device, a refined microscope and preview as far as they were chosen; its solver and
        start do not matter.
    """

    refine: SolverSettings
    dps: SolverSettings
    setup: Setup = field(default_factory=Setup)


def asked_in(session: Session) -> Asked:
    """What the choices of a session say."""
    setup = session.choices.setup
    found = [session.settings("refine"), session.settings("dps")]
    refine, dps = (preview(s) for s in found) if setup.preview else found
    return Asked(refine, dps, setup)


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
    return Plan(tuple(steps), notes)


def _setup(asked: Asked, solver: str, depth: Depth) -> Setup:
    update = {
        "solver": solver,
        "slices": depth.slices,
        "slice_thickness": depth.slice_thickness,
        "together": depth.together,
        "start": "",
    }
    return asked.setup.model_copy(update=update)


def depth_of(calibration: Calibration, setup: Setup) -> tuple[Depth, tuple[str, ...]]:
    """Slices of the last step: as chosen, as the told thickness asks, or 8 of 1.6 Å.

    Returns
    -------
    Depth, notes
        A note where the thickness is supposed.
    """
    if setup.slices is None and setup.slice_thickness is None:
        depth = depth_for_prior(calibration)
    else:
        each = slicing(calibration, setup.slices, setup.slice_thickness)
        thick = sum(each) > 2 * TOGETHER
        depth = Depth(len(each), each[0], max(1, round(TOGETHER / each[0])) if thick else 1)
    if setup.together > 1:
        depth = Depth(depth.slices, depth.slice_thickness, setup.together)
    if calibration.thickness is not None or setup.slices is not None:
        return depth, ()
    note = (
        f"the thickness is not told: {depth.slices} slices of {depth.slice_thickness:g} Å are "
        "supposed"
    )
    return depth, (note,)


def depth_for_refine(thin: Depth) -> Depth:
    """Slices of about 10 Å for the same specimen; those of the prior where it is thin."""
    whole = thin.slices * thin.slice_thickness
    count = SOLVERS["refine"].slices(Calibration(thickness=whole), None, None) or thin.slices
    return Depth(count, whole / count)


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
