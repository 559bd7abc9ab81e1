"""Recovery: what a run leaves on disk while it goes on, so that a crash, a kill or a power cut does not cost a night."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .record import RunRecord

FOLDER = "MEPDIFF_RECOVERY"  # environment variable that names another place


def folder() -> Path:
    """Where running runs leave their states."""
    given = os.environ.get(FOLDER)
    if given:
        return Path(given)
    from platformdirs import user_data_dir

    return Path(user_data_dir("napari-mepdiff", appauthor=False)) / "runs"


class Keeper:
    """Leaves the newest volume, the solver's state and a description of a run on disk; removes them when it has come to its end.

    Writing must never harm the run: what fails is noted once in ``run.frames.notes``.
    """

    def __init__(self, run: RunRecord, every: float) -> None:
        self._run, self._every, self._saved = run, every, time.monotonic()
        self.place: Path | None = folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{run.number}"
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            description = {"pid": os.getpid(), "name": run.name, "path": run.path, "started": time.time(),
                           "choices": {"setup": run.setup.model_dump(mode="json"),
                                       "preparation": run.preparation.model_dump(mode="json")},
                           "settings": run.first.model_dump(mode="json"), "solver": run.solver}
            (self.place / "run.json").write_text(json.dumps(description, indent=1))
        except OSError as error:
            self._note(error)

    @property
    def checkpoint(self) -> Path | None:
        """Where the solver keeps its state; None where nothing can be written."""
        return None if self.place is None else self.place / "state.checkpoint"

    def volume(self, force: bool = False) -> None:
        """Save the newest volume if it is time."""
        if self.place is None or (not force and time.monotonic() - self._saved < self._every):
            return
        self._saved = time.monotonic()
        try:
            self._run.volume().save(self.place / "volume.h5")
        except (OSError, ValueError) as error:
            self._note(error)

    def close(self, finished: bool) -> None:
        """At the end: a run that came to its end, or was stopped, needs this no more; of one that failed the volume stays."""
        if self.place is None:
            return
        if finished:
            shutil.rmtree(self.place, ignore_errors=True)
        elif self._run.frame is not None:
            self.volume(force=True)
        else:
            shutil.rmtree(self.place, ignore_errors=True)

    def _note(self, error: BaseException) -> None:
        self.place = None
        reason = getattr(error, "strerror", None) or error
        self._run.frames.notes.append(f"nothing is left on disk for recovery: {reason}")


@dataclass(frozen=True)
class Interrupted:
    """A run that a crash interrupted, or that failed."""

    place: Path
    name: str
    path: str
    description: dict[str, Any]

    @property
    def volume(self) -> Path | None:
        """Its last volume, if it had one."""
        path = self.place / "volume.h5"
        return path if path.exists() else None

    @property
    def checkpoint(self) -> Path | None:
        """Its solver's state, if it had come so far."""
        path = self.place / "state.checkpoint"
        return path if path.exists() else None

    def discard(self) -> None:
        """Remove it."""
        shutil.rmtree(self.place, ignore_errors=True)


def interrupted() -> list[Interrupted]:
    """Runs of napari sessions that are no longer alive, newest first."""
    found = []
    root = folder()
    if not root.is_dir():
        return []
    for place in sorted(root.iterdir(), reverse=True):
        try:
            description = json.loads((place / "run.json").read_text())
            pid = int(description["pid"])
            run = Interrupted(place, str(description["name"]), str(description["path"]), description)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        failed_here = pid == os.getpid()
        if failed_here or _alive(pid):
            continue
        if run.volume is None and run.checkpoint is None:
            run.discard()
            continue
        found.append(run)
    return found


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)
