"""Numbers of the microscope side by side: told, estimated or refined, with unit and uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..physics.optics import Optics
from .state import MicroscopeState


@dataclass(frozen=True)
class Value:
    """One number of the microscope.

    Attributes
    ----------
    name, unit : str
    value, error : float or None
        As estimated or refined, with one standard deviation; None where the data do not tell.
    told : float or None
        As the file or the user says.
    verdict : str
        In words.
    """

    name: str
    unit: str
    value: float | None
    error: float | None
    told: float | None
    verdict: str


def agreement(value: float, error: float, told: float | None, least: float = 0.0) -> str:
    """In words: whether a value is what was told, within three errors or `least`."""
    if told is None:
        return "not told; can be taken over"
    if abs(value - told) <= max(3 * error, least):
        return "agrees"
    return f"differs from what was told by {value - told:+.3g}"


def refined_values(
    state: MicroscopeState, told: Optics | None, scan: NDArray[np.float64] | None = None
) -> tuple[Value, ...]:
    """What a run refined, beside what was told.

    Parameters
    ----------
    state : MicroscopeState
    told : Optics or None
        None where nothing was told of the lens.
    scan : ndarray, optional
        (N, 2), Å, the positions as told; without them nothing is said of the scan.
    """
    moved = () if scan is None else _scan(state, scan)
    return (*_lens(state, told), *moved, *_rest(state))


_NAMES = {"C12": "phi12", "C21": "phi21", "C23": "phi23"}


def _lens(state: MicroscopeState, told: Optics | None) -> Iterator[Value]:
    found, errors = state.optics, state.errors
    if found is None:
        return
    error, focus = errors.get("C10"), None if told is None else told.overfocus
    said = "" if error is None else agreement(found.overfocus, error, focus)
    yield Value("C10", "Å", found.overfocus, error, focus, said)
    for name, angle in _NAMES.items():
        size, parts = getattr(found, name), [errors.get(f"{name}{axis}") for axis in "ab"]
        error = None if None in parts else math.hypot(*parts) / math.sqrt(2)  # type: ignore[arg-type]
        small = error is not None and size < 3 * error
        said = "none that can be told from 0" if small else ""
        before = None if told is None else getattr(told, name)
        yield Value(name, "Å", size, error, before, said)
        if error is not None and not small and size:
            turn = math.degrees(getattr(found, angle))
            was = math.degrees(getattr(told, angle)) if before else None
            yield Value(angle, "°", turn, math.degrees(error / size / int(name[2])), was, "")
    if state.source_size is not None:
        error = errors.get("source_size")
        yield Value("source size", "Å", state.source_size, error, None, "rms for each axis")


def _scan(state: MicroscopeState, scan: NDArray[np.float64]) -> Iterator[Value]:
    if scan.shape != state.positions.shape or not _plane(scan):
        return
    about = scan - scan.mean(axis=0)
    shift = state.positions - scan
    shift = shift - shift.mean(axis=0)
    change = np.linalg.lstsq(about, shift, rcond=None)[0].T  # (y, x) by (y, x)
    beyond = float(np.sqrt(((shift - about @ change.T) ** 2).mean()))
    turn = math.degrees((change[0, 1] - change[1, 0]) / 2)
    shear = 100 * (change[0, 1] + change[1, 0]) / 2
    yield Value("scan scale y", "%", 100 * change[0, 0], None, 0.0, "change against the told step")
    yield Value("scan scale x", "%", 100 * change[1, 1], None, 0.0, "change against the told step")
    yield Value("scan shear", "%", shear, None, 0.0, "")
    yield Value("scan turn", "°", turn, None, 0.0, "from +y towards +x, beyond the told rotation")
    yield Value("jitter", "Å", beyond, None, 0.0, "rms for each axis, beyond scale, shear and turn")


def _plane(scan: NDArray[np.float64]) -> bool:
    """Whether the scan has two dimensions: a line tells no map."""
    return len(scan) > 3 and np.linalg.matrix_rank(scan - scan.mean(axis=0)) == 2


def _rest(state: MicroscopeState) -> Iterator[Value]:
    for axis, name in enumerate("yx"):
        said = "of the beam against the columns of atoms"
        yield Value(f"tilt {name}", "mrad", state.tilt[axis], None, 0.0, said)
    yield Value("background", "e/px", state.background, None, None, "in every pattern")
    power = np.square(np.abs(state.probe.astype(np.complex128))).sum(axis=(1, 2))
    share = 100 * float(power.max() / power.sum())
    said = f"of {len(power)} modes" if len(power) > 1 else "one mode"
    yield Value("strongest mode", "%", share, None, None, said)
