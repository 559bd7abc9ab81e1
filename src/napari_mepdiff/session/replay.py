"""Replay: a record played again, whoever wrote it.

On the same machine it gives the same volume, bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..reconstruction.control import Control
from ..reconstruction.registry import SOLVERS
from ..reconstruction.script import Script
from .fingerprints import fingerprint_of, prior_fingerprint
from .recipe import Attached, Recipe
from .record import NoRecord, Record
from .runs import RunRecord

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM


class CannotReplay(ValueError):
    """A record that cannot be played again exactly, and why."""


def read_record(path: str | Path) -> Record:
    """The record in a volume's file, in the .json beside it, or in what a lost run left.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    NoRecord
        If it does not say how its volume was made.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix != ".json":
        from ..export.volumes import load_volume

        return Record.from_provenance(load_volume(path).provenance, path.name)
    try:
        content: Any = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise NoRecord(f"{path.name} is not readable as JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("provenance", content.get("record", content))
    return Record.from_provenance(content, path.name)


def play(
    record: Record,
    *,
    folder: Path | None = None,
    data: FourDSTEM | None = None,
    path: str | Path | None = None,
    number: int = 1,
    made_by: str = "napari-mepdiff",
    start: NDArray[np.float32] | None = None,
) -> RunRecord:
    """A run that plays a record again when it is worked off (:func:`~.work.work`, a runner).

    Parameters
    ----------
    record : Record
    folder : Path, optional
        Of the record: where the start, and a measurement that was moved, are looked for.
    data : FourDSTEM, optional
        The measurement as it was opened, if it is open already.
    path : path, optional
        Where the file of the measurement is now.
    start : ndarray, optional
        The volume it began from, if it is at hand.

    Raises
    ------
    CannotReplay
        If it cannot be the same volume, with all the reasons.
    FileNotFoundError, ReadError, ValueError
        If the measurement cannot be opened or prepared, or the settings are no longer valid.
    """
    reasons = record.obstacles()
    if start is not None and record.recipe.start is not None:
        reasons = [r for r in reasons if "was not kept" not in r]
    if reasons:
        raise CannotReplay(f"{record.run or 'this run'} cannot be made again: {'; '.join(reasons)}")
    recipe = record.recipe
    if recipe.solver not in SOLVERS:
        raise CannotReplay(f"there is no solver {recipe.solver!r} in this version")
    settings = SOLVERS[recipe.solver].settings_type().model_validate(record.settings)
    weights = prior_fingerprint(settings)
    if recipe.prior_fingerprint not in (None, weights):
        raise CannotReplay(
            f"the weights of the prior {getattr(settings, 'prior', '')} are not there, or are not "
            "those that the run was made with"
        )
    first = beginning(recipe, folder) if start is None else _held_to(recipe, start)
    if data is None:
        data = recipe.opening.open(path, folder)
    require_same(recipe, data)
    recipe = recipe.model_copy(
        update={
            "probe": _attached(recipe.probe, folder),
            "microscope": _attached(recipe.microscope, folder),
        }
    )
    changes, end = record.change_list(), record.stop_after
    control = Script(changes, end) if changes or end is not None else Control()
    if path is not None:
        opening = recipe.opening.model_copy(update={"path": str(Path(path).resolve())})
        recipe = recipe.model_copy(update={"opening": opening})
    return RunRecord(
        number,
        recipe,
        settings,
        recipe.preparation.apply(data),
        start=first,
        control=control,
        made_by=made_by,
    )


def require_same(recipe: Recipe, data: FourDSTEM) -> None:
    """The measurement is the one of the record.

    Raises
    ------
    CannotReplay
        If its file is another, or was changed.
    """
    was = recipe.opening.fingerprint
    now = data.provenance.get("source", {}).get("hash")
    if was is not None and now != was:
        raise CannotReplay(
            f"{Path(recipe.opening.path).name} is not the file that this run was made from (its "
            "content is another): find the original, and name it with --data if it was moved"
        )


def _attached(file: Attached | None, folder: Path | None) -> Attached | None:
    """A file of the record where it is now, held to its fingerprint."""
    if file is None:
        return None
    place = Path(file.path)
    if not place.exists() and folder is not None:
        place = folder / place.name
    if not place.exists():
        raise CannotReplay(f"{file.path} is not there: put it beside the record")
    found = Attached.of(place)
    if file.fingerprint not in (None, found.fingerprint):
        raise CannotReplay(f"{place.name} has another content than when the run was made")
    return found


def beginning(recipe: Recipe, folder: Path | None = None) -> NDArray[np.float32] | None:
    """The volume (D, H, W) in rad that a run begins from, held to the record; None: from nothing.

    Raises
    ------
    CannotReplay
        If it is not where it was kept, or has other values.
    """
    start = recipe.start
    if start is None:
        return None
    if start.file is None:
        raise CannotReplay(f"the volume it began from ({start.name or 'an array'}) was not kept")
    place = Path(start.file)
    if not place.exists() and folder is not None:
        place = folder / place.name
    if not place.exists():
        raise CannotReplay(
            f"the volume it began from, {start.file}, is not there: put it beside the record"
        )
    return _held_to(recipe, load_array(place))


def load_array(path: Path) -> NDArray[np.float32]:
    """A volume's values in rad, from any format that volumes are read from, or a bare .npy."""
    if path.suffix == ".npy" and not path.with_name(path.name + ".json").exists():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    from ..export.volumes import load_volume

    return load_volume(path).to_unit("rad").array


def _held_to(recipe: Recipe, array: NDArray[np.float32]) -> NDArray[np.float32]:
    start = recipe.start
    assert start is not None
    if start.sha256 and fingerprint_of(array) != start.sha256:
        raise CannotReplay(
            f"the volume it began from, {start.file or start.name}, has other values than then"
        )
    return np.asarray(array, np.float32)
