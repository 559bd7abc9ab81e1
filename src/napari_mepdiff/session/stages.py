"""Stages: the steps of a plan as they come about, and the work of each beside the window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from ..measurement.dataset import DataError
from ..reconstruction.estimate import Estimate, estimate
from .automatic import told_by_patterns
from .measured import Measured, outline
from .plan import Plan, RunStep, Step
from .saving import unused
from .starting import laid_on
from .work import plain_words

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..measurement.preparation import Preparation
    from ..microscope import estimate as by_patterns
    from .jobs import Report
    from .microscopes import Microscopes
    from .runs import RunRecord

State = Literal["waiting", "going on", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Stage:
    """A step of the plan, and how far it has come.

    Attributes
    ----------
    step : LookStep or RunStep
    state : str
    notes : tuple of str
        What it took over, or could not find out.
    cost : Estimate or None
        Time and memory of its run, measured before that begins.
    run : str
        Name of its run.
    """

    step: Step
    state: State = "waiting"
    notes: tuple[str, ...] = ()
    cost: Estimate | None = None
    run: str = ""


@dataclass(frozen=True)
class Looked:
    """What the patterns say.

    Attributes
    ----------
    found : Estimate or None
        None where nothing could be estimated.
    preparation : Preparation
        With what is taken over.
    notes : tuple of str
    """

    found: by_patterns.Estimate | None
    preparation: Preparation
    notes: tuple[str, ...]


def look_at(measured: Measured, report: Report | None = None) -> Looked:
    """Estimate by the patterns alone, and say what is to be taken over; for a worker."""
    from ..microscope.estimate import estimate as estimated

    before = measured.preparation
    try:
        found = estimated(measured.data, report)
    except DataError as error:
        return Looked(None, before, (f"nothing estimated: {error}",))
    after, notes = told_by_patterns(before, measured.data, found)
    return Looked(found, after, notes or ("what was told agrees with the patterns",))


@dataclass(frozen=True)
class Ready:
    """A step whose run can begin.

    Attributes
    ----------
    step : RunStep
        Its setup names the file of the refined microscope.
    start : ndarray or None
        Volume (D, H, W) in rad to begin from.
    cost : Estimate or None
    notes : tuple of str
        Why there is no cost.
    """

    step: RunStep
    start: NDArray[Any] | None = None
    cost: Estimate | None = None
    notes: tuple[str, ...] = ()


def costs_of(data: FourDSTEM, plan: Plan) -> tuple[Estimate | None, ...]:
    """What each run of a plan would take on the measurement as it is now; for a worker.

    Where the size of a detector pixel is not told it is that by the bright disk. None where
    something else is missing.
    """
    costs: list[Estimate | None] = []
    modes = 1
    for step in plan.runs:
        setup = step.setup
        if step.microscope == "refined":  # its file is not there yet
            setup = setup.model_copy(update={"modes": max(setup.modes, modes)})
        if step.solver == "refine":
            modes = getattr(step.settings, "modes", 1)
        try:
            costs.append(estimate(outline(_scaled(data), setup, step.settings), step.settings))
        except (ValueError, MemoryError, OSError):
            costs.append(None)
    return tuple(costs)


def _scaled(data: FourDSTEM) -> FourDSTEM:
    from ..microscope.disk import fit_disk

    c = data.calibration
    if c.pixel_size is not None and c.semi_angle is not None:
        return data
    disk = fit_disk(data.reading.summary().pacbed)
    found = {"pixel_size": disk.pixel_size(c), "semi_angle": disk.semi_angle(c)}
    told = {k: v for k, v in found.items() if v is not None and getattr(c, k) is None}
    return data.calibrated(**told)


def make_ready(
    step: RunStep,
    measured: Measured,
    runs: list[RunRecord],
    microscopes: Microscopes,
    folder: Path,
    report: Report,
) -> Ready:
    """Keep what was refined, lay the start out, measure what the run will cost; for a worker.

    Parameters
    ----------
    runs : list of RunRecord
        Of the steps before, in their order.
    folder : Path
        Where a refined microscope is kept.

    Raises
    ------
    OSError
        If it cannot be written.
    ValueError
        If the start does not fit, or the measurement says too little.
    """
    setup, start = step.setup, None
    if step.microscope == "refined":
        path = _kept(next(r for r in reversed(runs) if r.solver == "refine"), microscopes, folder)
        setup = setup.model_copy(update={"microscope": str(path)})
    report(0.2)
    problem = outline(measured.data, setup, step.settings)
    if step.start == "volume":
        start = laid_on(problem, runs[-1].volume())
    report(0.4)
    ready = Ready(replace(step, setup=setup), start)
    try:
        return replace(ready, cost=estimate(problem, step.settings))
    except (ValueError, MemoryError, OSError) as error:
        note = f"no estimate of time and memory: {plain_words(error)}"
        return replace(ready, notes=(note,))


def _kept(run: RunRecord, microscopes: Microscopes, folder: Path) -> Path:
    """The file of what a run refined; written if there is none yet."""
    found = microscopes.read_off(run)
    if found is None:
        raise ValueError(f"{run.name} has refined nothing")
    if found.path is None or not found.path.exists():
        found = microscopes.save(unused(folder / f"{run.file_stem}_microscope.h5"), found=found)
    assert found.path is not None
    return found.path
