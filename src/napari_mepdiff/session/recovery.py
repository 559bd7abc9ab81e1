"""Recovery: what a run leaves on disk while it goes on.

A crash, a kill or a power cut shall not cost a night.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..base.files import atomic
from ..base.folders import recovery_folder
from .record import Outcome, Record

if TYPE_CHECKING:
    from .runs import RunRecord

log = logging.getLogger(__name__)
_FILE, _VOLUME, _START, _STATE = "run.json", "volume.h5", "start.npy", "state.checkpoint"


class Keeper:
    """Leaves record, newest volume and the solver's state of a run on disk.

    They are removed when the run has come to its end or was stopped; of one that failed they stay,
    with the reason. Writing never harms the run: what fails is noted once in ``run.frames.notes``.

    Parameters
    ----------
    run : RunRecord
    every : float
        Seconds between volumes; the first is written at once.
    lost : Interrupted, optional
        The run that this one goes on with: its folder becomes this one's, so that there is always
        one folder with the newest state, whatever happens next.
    """

    def __init__(self, run: RunRecord, every: float, lost: Interrupted | None = None) -> None:
        self._run, self._every, self._lost = run, every, lost
        self._saved = -float("inf")
        self.place: Path | None = None if lost is None else lost.place
        self._process = {"pid": os.getpid(), "process_began": _began(os.getpid())}
        self._started = time.time()
        try:
            if self.place is None:
                self.place = self._new_place()
            self._describe()
        except OSError as error:
            self._give_up(error)

    def _new_place(self) -> Path:
        root = recovery_folder()
        root.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.place = Path(tempfile.mkdtemp(prefix=f"{stamp}-{os.getpid()}-", dir=root))
        if self._run.start is not None:
            with atomic(self.place / _START) as temporary:
                np.save(temporary, self._run.start)
        return self.place

    @property
    def checkpoint(self) -> Path | None:
        """Where the solver keeps its state; None where nothing can be written."""
        return None if self.place is None else self.place / _STATE

    def look(self) -> None:
        """After a step: write the newest volume if it is time."""
        if time.monotonic() - self._saved >= self._every:
            self._write()

    def close(self, outcome: Outcome) -> None:
        """The run has ended. Of one that failed everything stays, with the reason."""
        if self.place is None:
            return
        if outcome.state == "failed" and (self._run.frame is not None or self._has_state()):
            self._write()
        else:
            shutil.rmtree(self.place, ignore_errors=True)

    def _has_state(self) -> bool:
        return self.checkpoint is not None and self.checkpoint.exists()

    def _write(self) -> None:
        if self.place is None:
            return
        try:
            self._describe()
            if self._run.frame is not None:
                self._run.volume().save(self.place / _VOLUME)
            self._saved = time.monotonic()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _describe(self) -> None:
        assert self.place is not None
        record = self._record()
        start = record.recipe.start
        if start is not None and self._run.start is not None:
            start = start.model_copy(update={"file": _START})
            record = record.model_copy(
                update={"recipe": record.recipe.model_copy(update={"start": start})}
            )
        description = {**self._process, "started": self._started, "record": record.as_provenance()}
        with atomic(self.place / _FILE) as temporary:
            temporary.write_text(json.dumps(description, indent=1))

    def _record(self) -> Record:
        """Of the run; before its first frame that of the lost one, whose state is still here."""
        record = self._run.record()
        if self._lost is None or self._run.frame is not None:
            return record
        now = {"state": record.outcome.state, "reason": record.outcome.reason}
        outcome = self._lost.record.outcome.model_copy(update=now)
        return self._lost.record.model_copy(update={"outcome": outcome})

    def _give_up(self, error: BaseException) -> None:
        """Nothing more is written; what was written before stays for recovery."""
        if self.place is not None and not any(self.place.glob("[!.]*")):
            shutil.rmtree(self.place, ignore_errors=True)
            self.place = None
        reason = getattr(error, "strerror", None) or error
        text = f"the state of the run cannot be kept for recovery: {reason}"
        log.warning("%s: %s", self._run.name, text)
        if text not in self._run.frames.notes:
            self._run.frames.notes.append(text)


@dataclass(frozen=True)
class Interrupted:
    """A run that a crash interrupted, or that failed.

    Attributes
    ----------
    place : Path
        Folder with what it left.
    record : Record
    started : float
        Seconds since 1970.
    """

    place: Path
    record: Record
    started: float

    @property
    def name(self) -> str:
        """Of the run."""
        return self.record.run

    @property
    def path(self) -> str:
        """Of its measurement."""
        return self.record.recipe.opening.path

    @property
    def reason(self) -> str:
        """Why it ended, as far as that is known."""
        return self.record.outcome.reason or "the program ended while it went on"

    @property
    def volume(self) -> Path | None:
        """Its last volume, if it had one."""
        path = self.place / _VOLUME
        return path if path.exists() else None

    @property
    def checkpoint(self) -> Path | None:
        """Its solver's state, if it had come so far."""
        path = self.place / _STATE
        return path if path.exists() else None

    def start_array(self) -> NDArray[np.float32] | None:
        """The volume that it began from."""
        path = self.place / _START
        return np.load(path, allow_pickle=False) if path.exists() else None

    @property
    def waiting(self) -> bool:
        """Whether it is still there, and no program goes on with it already."""
        try:
            description = json.loads((self.place / _FILE).read_text())
            return not _alive(description) or _record(description).outcome.state == "failed"
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def discard(self) -> None:
        """Remove it."""
        shutil.rmtree(self.place, ignore_errors=True)


def interrupted() -> list[Interrupted]:
    """Runs of programs that are no longer alive, and failed ones of this one, newest first."""
    root = recovery_folder()
    if not root.is_dir():
        return []
    found = []
    for place in root.iterdir():
        try:
            description = json.loads((place / _FILE).read_text())
            record = _record(description)
            run = Interrupted(place, record, float(description.get("started", 0.0)))
            living = _alive(description)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.info("%s is no run that can be recovered: %s", place, error)
            continue
        if living and record.outcome.state != "failed":
            continue
        if run.volume is None and run.checkpoint is None:
            if not living:
                run.discard()
            continue
        found.append(run)
    return sorted(found, key=lambda run: run.started, reverse=True)


def _record(description: dict[str, Any]) -> Record:
    if "record" in description:
        return Record.from_provenance(description["record"], _FILE)
    from .older import interrupted_run

    return Record.from_provenance(interrupted_run(description), _FILE)


def _alive(description: dict[str, Any]) -> bool:
    """Whether the program that wrote this still runs; its number alone may be another's by now."""
    import psutil

    pid, began = int(description["pid"]), description.get("process_began")
    if not psutil.pid_exists(pid):
        return False
    now = _began(pid)
    return began is None or now is None or abs(now - float(began)) < 1.0


def _began(pid: int) -> float | None:
    """When a process began, seconds since 1970; None if that cannot be known."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None
