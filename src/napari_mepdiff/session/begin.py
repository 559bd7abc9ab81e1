"""Begin a run without a session: from files and settings, as the command line and scripts do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..measurement.preparation import Preparation
from ..reconstruction.change import Change
from ..reconstruction.control import Control
from ..reconstruction.history import FrameStore
from ..reconstruction.registry import SOLVERS
from ..reconstruction.script import Script
from ..reconstruction.settings import SolverSettings
from .fingerprints import fingerprint_of
from .recipe import Attached, Opening, Recipe, Start
from .replay import load_array
from .runs import RunRecord

NEWEST_ONLY = 1 << 60  # frames between those that are kept


def settings_of(solver: str, fields: dict[str, Any], preview: bool = False) -> SolverSettings:
    """Settings of a solver with the given fields.

    Raises
    ------
    ValueError
        If there is no such solver or field, a value is out of range, or a field has no effect
        beside the others.
    """
    if solver not in SOLVERS:
        raise ValueError(f"no solver {solver!r}; there are {', '.join(SOLVERS)}")
    entry = SOLVERS[solver]
    known = entry.settings_type().model_fields
    for name in fields:
        if name not in known:
            others = [n for n, e in SOLVERS.items() if name in e.settings_type().model_fields]
            hint = f"; {' and '.join(others)} do" if others else f"; it has {', '.join(known)}"
            raise ValueError(f"{name}: {solver} has no such setting{hint}")
    settings = entry.default(**fields)
    without = settings.idle()
    vain = [f"{n} has no effect here: {without[n]}" for n in fields if n in without]
    if vain:
        raise ValueError("; ".join(vain))
    if preview:
        from ..reconstruction.preview import preview as less

        return less(settings)
    return settings


def parse_steering(items: list[str]) -> tuple[list[Change], int | None]:
    """``STEP:setting=value``, ``STEP:back=EARLIER``, ``STEP:stop`` as changes and where to stop.

    Raises
    ------
    ValueError
        If an item is of another form.
    """
    from ..base.words import parse_fields

    changes: list[Change] = []
    stop = None
    for item in items:
        step, sign, rest = item.partition(":")
        if not sign or not step.isdigit():
            raise ValueError(
                f"--steer wants STEP:setting=value, STEP:back=EARLIER or STEP:stop; got {item!r}"
            )
        if rest == "stop":
            stop = int(step)
        else:
            fields = parse_fields([rest])
            back = fields.pop("back", None)
            changes.append(Change(int(step), fields, None if back is None else int(back)))
    return changes, stop


def steering(items: list[str], settings: SolverSettings) -> Control:
    """A control that makes these changes; what the solver cannot do is refused before it begins.

    Raises
    ------
    ValueError
        If an item is of another form, out of range, or nothing that this solver can change.
    """
    from ..reconstruction.registry import solver_of

    changes, stop = parse_steering(items)
    if not changes and stop is None:
        return Control()
    Script(changes, stop).bind(settings, solver_of(settings).can_go_back)
    return Script(changes, stop)


def begin(
    opening: Opening,
    preparation: Preparation,
    settings: SolverSettings,
    *,
    solver: str,
    slices: int | None = None,
    slice_thickness: float | None = None,
    together: int = 1,
    modes: int = 1,
    margin: float | None = None,
    probe: Path | None = None,
    microscope: Path | None = None,
    start: Path | None = None,
    device: str = "cpu",
    preview: bool = False,
    control: Control | None = None,
    keep_frames: bool = False,
    made_by: str = "a script",
) -> RunRecord:
    """A run from files, ready to be worked off by :func:`~.work.work`.

    Parameters
    ----------
    opening : Opening
        Path and options; fingerprint and full path are filled in.
    together : int
        Slices that the physics takes as one.
    margin : float, optional
        Å by which positions may move beyond the canvas; what the solver needs if not given.
    probe, microscope, start : path, optional
        A probe, a refined microscope (probe and positions), a volume to begin from.
    keep_frames : bool
        Keep every frame (for a film), else the newest only.

    Raises
    ------
    FileNotFoundError, ReadError, DataError, ValueError
        If something cannot be read, or does not fit.
    """
    SOLVERS[solver].refuse(settings, start)
    if probe is not None and microscope is not None:
        raise ValueError("a refined microscope holds the probe: leave the other probe out")
    raw = opening.open()
    options = opening.model_dump(include={"dataset", "scan_shape", "axes", "calibration"})
    data = preparation.apply(raw)
    array = None if start is None else load_array(start)
    begun = None
    if start is not None and array is not None:
        begun = Start(sha256=fingerprint_of(array), file=str(start.resolve()), name=start.name)
    recipe = Recipe(
        opening=Opening.of(raw, opening.path, **options),
        preparation=preparation,
        solver=solver,
        slices=SOLVERS[solver].slices(data.calibration, slices, slice_thickness),
        slice_thickness=slice_thickness,
        together=together,
        modes=modes,
        margin=settings.position_room() if margin is None else margin,
        probe=None if probe is None else Attached.of(probe),
        microscope=None if microscope is None else Attached.of(microscope),
        start=begun,
        device=device,
        preview=preview,
    )
    frames = FrameStore(every=1 if keep_frames else NEWEST_ONLY)
    return RunRecord(
        1, recipe, settings, data, start=array, control=control, frames=frames, made_by=made_by
    )
