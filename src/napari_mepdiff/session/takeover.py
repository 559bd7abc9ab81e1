"""Taking over what was found of the microscope: into the preparation, or into the next run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import radians
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..measurement.preparation import ORIENTED
from ..physics.optics import wavelength
from ..reconstruction.assumptions import refined_positions

if TYPE_CHECKING:
    from ..measurement.preparation import Preparation
    from ..microscope.estimate import Estimate
    from ..microscope.state import MicroscopeState
    from .microscope_table import Row
    from .session import Session

Source = Literal["estimated", "refined"]
FIELDS = {
    "C10": "overfocus",
    "C12": "C12",
    "phi12": "phi12",
    "C21": "C21",
    "phi21": "phi21",
    "C23": "C23",
    "phi23": "phi23",
    "semi-angle": "semi_angle",
    "detector pixel": "pixel_mrad",
    "scan rotation": "rotation",
    "gain": "gain",
}
"""Field of the preparation that holds a value of the table."""

WITH_THE_STATE = (
    "the preparation has no place for it: it goes along with probe and positions, by Use in next "
    "run"
)
_ELSEWHERE = {
    "disk centre y": "centre the patterns in the Data dock: Calibration, → centre",
    "disk centre x": "centre the patterns in the Data dock: Calibration, → centre",
    "disk radius": "it follows from semi-angle and detector pixel: take one of these over",
    "electrons a pattern": "it is counted from the patterns by every run",
    "dose": "it is counted from the patterns by every run",
}


def refusal(row: Row, source: Source) -> str:
    """Why a value cannot be taken over; empty where it can."""
    if getattr(row, source) is None:
        return f"nothing is {source} here"
    if row.name in FIELDS:
        return ""
    return _ELSEWHERE.get(row.name, WITH_THE_STATE)


def taken_fields(
    rows: Mapping[str, Row],
    chosen: Mapping[str, Source],
    preparation: Preparation,
    energy: float | None = None,
    estimated: Estimate | None = None,
) -> dict[str, Any]:
    """Fields of the preparation that chosen values make.

    The size of an aberration takes its angle along. The estimated rotation takes along whether the
    detector's axes are swapped.

    Parameters
    ----------
    rows : mapping
        The table, by name.
    chosen : mapping
        Where the value is taken from, by name.
    preparation : Preparation
        As it is now.
    energy : float, optional
        kV, for a detector pixel in mrad.
    estimated : Estimate, optional
        The estimate that the table shows.

    Raises
    ------
    ValueError
        If a value is not there, or belongs elsewhere; the message says where.
    """
    fields: dict[str, Any] = {}
    for name, source in chosen.items():
        row = rows.get(name)
        if row is None:
            raise ValueError(f"{name} is not known: there are {', '.join(rows)}")
        why = refusal(row, source)
        if why:
            raise ValueError(f"{name} cannot be taken over: {why}")
        value = float(getattr(row, source))
        if name == "scan rotation" and estimated is not None and estimated.parallax is not None:
            fields |= _turned(preparation, round(value, 2), estimated.parallax.transpose)
        elif name == "detector pixel":
            if energy is None:
                raise ValueError("a detector pixel in mrad needs the beam energy: give it first")
            fields["pixel_mrad"] = value * wavelength(energy) * 1e3 / preparation.bin
        elif name == "gain":
            fields["gain"] = value * (preparation.gain or 1.0)
        else:
            fields[FIELDS[name]] = radians(value) if name.startswith("phi") else value
        angle = f"phi{name[1:]}"
        if name[0] == "C" and angle in rows and getattr(rows[angle], source) is not None:
            fields[angle] = radians(getattr(rows[angle], source))
    return fields


def _turned(preparation: Preparation, angle: float, transpose: bool) -> dict[str, Any]:
    after = preparation.turned(angle, transpose)
    return {
        n: getattr(after, n)
        for n in ORIENTED
        if n == "rotation" or getattr(after, n) != getattr(preparation, n)
    }


def take_over(session: Session, fields: Mapping[str, Any]) -> str:
    """Put values into the preparation, as one step of undo.

    Returns
    -------
    str
        What was changed, for people.

    Raises
    ------
    ValueError
        While a run goes on, where nothing is chosen, or if a value does not fit the measurement;
        nothing changes then.
    Unseen
        As of :meth:`Session.change`.
    """
    session.require_free()
    if session.raw is None:
        raise ValueError("open 4D-STEM data first: there is nothing to prepare")
    if not fields:
        raise ValueError("choose what to take over first: tick values in the table")
    before = session.choices.preparation
    with session.history.one_step():
        session.change("preparation", **fields)
    after = session.choices.preparation
    if after == before:
        return "nothing changed: these values hold already"
    return f"taken over: {session.history.newest('preparation')[0].words}"


def require_same_scan(session: Session, state: MicroscopeState) -> None:
    """Raises ValueError where a state cannot serve the measurement that is open."""
    if session.data is None:
        raise ValueError("open 4D-STEM data first: a refined microscope belongs to a measurement")
    refined_positions(state, session.data)


def own_file_name(stem: str, state: MicroscopeState) -> str:
    """Of a file that holds just this: runs of other sessions may bear the same name."""
    digest = hashlib.sha256(np.ascontiguousarray(state.probe).tobytes())
    digest.update(np.ascontiguousarray(state.positions).tobytes())
    return f"{stem}_{digest.hexdigest()[:8]}_microscope.h5"


def use_in_next_run(
    session: Session, state: MicroscopeState, path: str | Path, *, save: bool = True
) -> Path:
    """Let the next runs begin with a refined probe, positions, tilt and background; undoable.

    Parameters
    ----------
    session : Session
    state : MicroscopeState
    path : path
        The file that holds it, `NAME_microscope.h5`.
    save : bool
        Write the state there first; never over another file.

    Raises
    ------
    ValueError
        If it does not fit the measurement that is open.
    FileExistsError, OSError
        If it cannot be written.
    """
    require_same_scan(session, state)
    path = Path(path).absolute()
    if save:
        if path.exists():
            raise FileExistsError(f"{path} exists: choose another name")
        state.save(path)
    session.change("setup", microscope=str(path))
    return path
