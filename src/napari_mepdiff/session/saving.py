"""Saving: a run's volume with its record, its start and what it refined; elsewhere if it must."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..export.volumes import save_volume
from ..specimen.volume import Unit
from .recipe import Start
from .runs import RunRecord

log = logging.getLogger(__name__)


def save_run(
    run: RunRecord,
    path: str | Path,
    *,
    array: str = "",
    frame: int | None = None,
    data: NDArray[np.float32] | None = None,
    slices: slice = slice(None),
    y: slice = slice(None),
    x: slice = slice(None),
    unit: Unit | None = None,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
) -> list[Path]:
    """Write a volume of a run with its record, and what belongs to it beside it.

    That is the volume that the run began from (NAME_start.h5), and the probe and positions that it
    refined (NAME_microscope.h5).

    Parameters
    ----------
    path : path
        The suffix says the format, see :func:`napari_mepdiff.export.volumes.save_volume`.
    array, frame, data
        Which volume, see :meth:`RunRecord.volume`.
    slices, y, x, unit, overwrite, provenance
        As for :func:`~napari_mepdiff.export.volumes.save_volume`.

    Returns
    -------
    list of Path
        The volume, its sidecar, and what lies beside them.

    Raises
    ------
    ValueError, IndexError
        If there is no such volume.
    OSError
        If it cannot be written; nothing is left behind then.
    """
    path = Path(path)
    volume = run.volume(array, frame, data)
    beside: dict[Path, Callable[[Path], object]] = {}
    start = run.recipe.start
    if run.start is not None and start is not None and start.file is None:
        place = path.with_name(f"{path.stem}_start.h5")
        beside[place] = partial(_keep_start, run, start)
        volume.provenance["recipe"]["start"]["file"] = place.name
    state = None if array else run.microscope()
    if state is not None and (frame is None or frame in (-1, len(run.frames) - 1)):
        beside[path.with_name(f"{path.stem}_microscope.h5")] = state.save
    there = [place for place in beside if place.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} exists; choose another name or allow overwriting")
    try:
        for place, save in beside.items():
            save(place)
        written = save_volume(
            volume,
            path,
            slices=slices,
            y=y,
            x=x,
            unit=unit,
            overwrite=overwrite,
            provenance=provenance,
        )
    except BaseException:
        for place in beside:
            if place not in there:
                place.unlink(missing_ok=True)
        raise
    return [*written, *beside]


def _keep_start(run: RunRecord, start: Start, place: Path) -> None:
    """The start beside the volume; it is the same for all volumes of a run."""
    assert run.start is not None
    assert run.problem is not None
    note = {"holds": f"the volume that {run.name} began from", "layer": start.name}
    run.problem.volume(np.asarray(run.start, np.float32), **note).save(place)


def save_spreads(run: RunRecord, path: Path, *, overwrite: bool = False) -> list[Path]:
    """The arrays that belong to the newest frame ('std', 'agreement'), each beside the volume."""
    frame = run.frame
    written: list[Path] = []
    for name in ("std", "agreement"):
        if frame is not None and name in frame.arrays:
            place = beside(path, name)
            written += save_run(run, place, array=name, overwrite=overwrite)
    return written


def beside(path: Path, name: str) -> Path:
    """The file of something that belongs to a volume: 'out.h5' and 'std' → 'out_std.h5'."""
    return path.with_name(f"{path.stem}_{name}{path.suffix}")


def save_somewhere(run: RunRecord, path: Path, **options: Any) -> list[Path]:
    """As :func:`save_run`; if that fails, beside the data, at home or in a temporary folder.

    What was tried and where it went is noted in ``run.control.notes``.

    Raises
    ------
    OSError
        If it can be written nowhere.
    """
    try:
        return save_run(run, path, **options)
    except OSError as error:
        failure = error
        log.warning("%s cannot be written: %s", path, error)
    for folder in _elsewhere(run, path):
        try:
            written = save_run(run, unused(folder / path.name), **options)
        except OSError as error:
            log.warning("%s cannot be written either: %s", folder, error)
            continue
        run.control.notes.append(f"{failure}; the volume is in {written[0]} instead")
        return written
    raise failure


def _elsewhere(run: RunRecord, path: Path) -> list[Path]:
    data = Path(run.path).parent if run.path and Path(run.path).exists() else None
    folders = [data, Path.home(), Path(tempfile.gettempdir())]
    return [f for f in folders if f is not None and f.is_dir() and f != path.parent]


def unused(path: Path) -> Path:
    """A name that is not in use: the given one, or with a number."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free
