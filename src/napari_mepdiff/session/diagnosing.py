"""Diagnosing: what the misfit of a run or of a volume in a file is made of, and the remedies done.

A script does what the docks do::

    jobs.run("diagnose", "diagnosing", lambda report: diagnose_run(run, report))
    remedy = run.diagnosis.remedies[0]
    apply(session, resolved(remedy, run))
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.folders import cache_folder
from ..reconstruction.diagnosis import MUCH, Diagnosis, Remedy, diagnose
from ..reconstruction.frame import RefineInfo
from .replay import read_record, require_same
from .takeover import own_file_name, use_in_next_run

if TYPE_CHECKING:
    from ..microscope.state import MicroscopeState
    from ..reconstruction.problem import Problem
    from .jobs import Report
    from .runs import RunRecord
    from .session import Session

log = logging.getLogger(__name__)


def worth_it(run: RunRecord) -> bool:
    """Whether the misfit of a run that has ended is so far above shot noise that it must be said.

    Not of a preview, nor of a run that was stopped early: they only need more steps.
    """
    outcome = run.ending or run.outcome
    if outcome is None or outcome.loss is None or run.preview or outcome.state != "done":
        return False
    return not outcome.loss <= MUCH  # nor a number


def diagnose_run(run: RunRecord, report: Report | None = None) -> Diagnosis:
    """Diagnose the newest volume of a run, and keep what is found in ``run.diagnosis``.

    Parameters
    ----------
    run : RunRecord
    report : callable, optional
        Told the fraction done; what it raises ends the work and nothing is kept.

    Raises
    ------
    ValueError
        If it has no volume yet, or still goes on.
    """
    frame = run.frame
    if frame is None or run.problem is None:
        raise ValueError(f"{run.name} has no volume yet: there is nothing to diagnose")
    problem = run.problem
    if len(problem.patterns) == 0:  # they were let go when it ended
        problem = run.recipe.problem(run.data)
    info = frame.info if isinstance(frame.info, RefineInfo) else None
    found = diagnose(problem, frame.volume, info, report)
    keep(run, found)
    return found


def keep(run: RunRecord, found: Diagnosis) -> None:
    """Into the run, and its words into the record: there instead of guesses from the misfit."""
    run.diagnosis = found
    if found.verdict == "well":
        return
    for name in ("ending", "outcome"):
        outcome = getattr(run, name)
        if outcome is not None and outcome.state != "running":
            setattr(run, name, outcome.model_copy(update={"verdict": str(found)}))


def at_end(run: RunRecord, tell: Callable[[str], None] | None = None) -> None:
    """As the last act of a run whose misfit must be explained; a failure costs only words."""
    if not worth_it(run):
        return
    if tell is not None:
        tell("looking for the cause of the misfit")

    def report(_: float) -> None:
        if run.control.stopped:
            raise InterruptedError("stopped by the user")

    try:
        diagnose_run(run, report)
    except (KeyboardInterrupt, InterruptedError):
        log.info("%s was not diagnosed: stopped", run.name)
    except Exception:
        log.exception("%s was not diagnosed", run.name)


def diagnose_file(
    volume: Path,
    data: Path | None = None,
    microscope: Path | None = None,
    report: Report | None = None,
) -> tuple[Diagnosis, tuple[Remedy, ...]]:
    """Diagnose a volume that was written with its record.

    Parameters
    ----------
    volume : path
        As napari-mepdiff wrote it.
    data : path, optional
        Where the measurement is now, if it was moved.
    microscope : path, optional
        Refined probe and positions that belong to it; NAME_microscope.h5 beside it is found.

    Returns
    -------
    diagnosis : Diagnosis
    remedies : tuple of Remedy
        With what was prepared for that run taken into account.

    Raises
    ------
    FileNotFoundError, NoRecord, CannotReplay, ValueError
        If the volume has no record, or its measurement is not there or another.
    """
    from ..export.volumes import load_volume

    record, held = read_record(volume), load_volume(volume)
    recipe = record.recipe
    raw = recipe.opening.open(data, volume.resolve().parent)
    require_same(recipe, raw)
    problem = recipe.problem(recipe.preparation.apply(raw))
    beside = volume.with_name(f"{volume.stem}_microscope.h5")
    place = microscope or (beside if beside.exists() else None)
    info = None
    if place is not None:
        from ..microscope.state import MicroscopeState

        info = as_found(MicroscopeState.load(place), problem)
    array = held.to_unit("rad", problem.energy).array
    if array.shape != problem.shape:
        raise ValueError(
            f"{volume.name} holds {array.shape} voxels, the run made {problem.shape}: it is a part "
            "of its volume; diagnose the whole one"
        )
    diagnosis = diagnose(problem, np.asarray(array, np.float32), info, report)
    shape = raw.detector_shape
    remedies = tuple(absolute(r, recipe.preparation, shape) for r in diagnosis.remedies)
    return diagnosis, remedies


def as_found(state: MicroscopeState, problem: Problem) -> RefineInfo:
    """A refined microscope from a file, as the run that found it had it.

    Raises
    ------
    ValueError
        If it is of another scan.
    """
    index = np.arange(len(problem.positions)) if problem.scan_index is None else problem.scan_index
    count = len(problem.positions) if problem.scan is None else len(problem.scan)
    if len(state.positions) != count:
        raise ValueError(
            f"the refined microscope has {len(state.positions)} positions, the scan {count}"
        )
    places = state.positions - np.array(problem.origin[1:])
    return RefineInfo(
        probe=state.probe,
        positions=places[index],
        tilt=state.tilt,
        background=state.background,
        optics=state.optics,
        source_size=state.source_size,
    )


# ---- remedies -------------------------------------------------------------------------------
def remedies_of(session: Session, run: RunRecord) -> tuple[Remedy, ...]:
    """What can be done about the misfit of a run, the most helpful first, ready to be applied.

    A microscope that another run on the same measurement refined, to a smaller misfit, is among
    them.
    """
    if run.diagnosis is None:
        return ()
    shape = None if session.raw is None else session.raw.detector_shape
    found = [absolute(r, run.preparation, shape) for r in run.diagnosis.remedies]
    if run.diagnosis.verdict != "well" and run.frame is not None:
        for other in reversed(session.runs):
            frame = other.frame
            if (
                other is run
                or other.path != run.path
                or other.preparation != run.preparation
                or not isinstance(None if frame is None else frame.info, RefineInfo)
                or frame is None
                or not frame.loss < 0.9 * run.frame.loss
            ):
                continue
            found.append(Remedy(f"Use the microscope of {other.name}", microscope=other.name))
            break
    return tuple(found)


def absolute(remedy: Remedy, preparation: Any, raw_shape: tuple[int, int] | None = None) -> Remedy:
    """A remedy that holds for the file: what was prepared before is taken into account.

    Parameters
    ----------
    remedy : Remedy
        As a diagnosis has it.
    preparation : Preparation
        Of the measurement that was diagnosed.
    raw_shape : (Ky, Kx), optional
        Of the detector in the file; without it patterns cannot be centred.
    """
    fields = dict(remedy.preparation)
    title, option = remedy.title, remedy.option
    if "gain" in fields and preparation.gain:
        fields["gain"] = float(f"{fields['gain'] * preparation.gain:.4g}")
        title, option = f"Set the gain to {fields['gain']:g}", f"--gain {fields['gain']:g}"
    if "centre" in fields:
        off = fields.pop("centre")
        if raw_shape is None:
            return replace(remedy, option="", preparation={})
        y, x = map(float, preparation.centre_off(off, raw_shape))
        fields |= {"centre_y": y, "centre_x": x}
        title, option = f"Centre at ({y:g}, {x:g}) px", f"--centre-y {y:g} --centre-x {x:g}"
    return replace(remedy, title=title, option=option, preparation=fields)


def apply(session: Session, remedy: Remedy) -> None:
    """Change the choices as a remedy says, for the next run: one step of undo.

    Parameters
    ----------
    remedy : Remedy
        Of :func:`remedies_of`.

    Raises
    ------
    ValueError
        If it does not fit the measurement that is open, or the run whose microscope it takes is
        gone; nothing changes then.
    Unseen
        If the patterns have to be looked through first, see :class:`.session.Session`.
    """
    setup = dict(remedy.setup)
    if remedy.solver:
        setup["solver"] = remedy.solver
    with session.one_undo_step():
        if remedy.microscope:
            _use_microscope(session, remedy.microscope)
        if remedy.preparation:
            session.change("preparation", **remedy.preparation)
        if setup:
            session.change("setup", **setup)
        if remedy.settings:
            session.change_settings(remedy.solver or None, **remedy.settings)


def _use_microscope(session: Session, name: str) -> None:
    """The microscope that a run refined, for the next runs, in a file of our own."""
    run = session.run_named(name)
    state = None if run is None else run.microscope()
    if run is None or state is None:
        raise ValueError(f"{name} is gone, and with it the microscope it found")
    folder = cache_folder() / "microscopes"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / own_file_name(run.file_stem, state)
    use_in_next_run(session, state, place, save=not place.exists())
