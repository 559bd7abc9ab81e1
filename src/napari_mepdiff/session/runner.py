"""Runner: the runs of a session, one at a time, each in a worker thread. No Qt.

A script uses it as the docks do::

runner = Runner(session)
run = runner.start()
runner.run_to_end()
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from psygnal import Signal

from ..reconstruction.frame import Frame
from ..reconstruction.settings import SolverSettings
from .record import Record
from .recovery import Interrupted
from .replay import play, require_same
from .runs import RunRecord, RunState
from .thread import RunThread

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from .session import Session

PATIENCE = 0.9  # s after which a run that shall stop can be let go: no double click does it


class Runner:
    """Runs of a session, one at a time.

    The worker emits no signals. :meth:`poll`, called in the thread that owns the session, tells
    what has happened since: the session's `run_changed`, `settings_taken` and `message`, and
    :attr:`arrived` with the newest frame, never with one that has been overtaken.
    """

    arrived = Signal(object, object)  # RunRecord, Frame
    ended = Signal(object)  # RunRecord: its outcome is known, and everything is cleaned up

    def __init__(self, session: Session) -> None:
        self.session = session
        self._thread: RunThread | None = None
        self._shown: Frame | None = None
        self._told = self._changes = 0
        self._settings: SolverSettings | None = None
        self._asked: float | None = None  # when the run was asked to stop
        self._left: list[RunThread] = []  # their steps still go on

    # ---- what a user does ------------------------------------------------------------------
    def start(
        self, start: NDArray[Any] | None = None, checkpoint: str | Path | None = None
    ) -> RunRecord:
        """Begin a run with the session's measurement and choices.

        Parameters
        ----------
        start : ndarray, optional
            Volume (D, H, W) in rad to begin from.
        checkpoint : path, optional
            State of an interrupted run of the same data and settings to go on from.

        Raises
        ------
        ValueError
            If there are no data, or another run goes on.
        """
        return self._begin(self.session.new_run(start), checkpoint)

    def play(
        self, record: Record, data: FourDSTEM | None = None, folder: Path | None = None
    ) -> RunRecord:
        """Play a record again.

        Parameters
        ----------
        record : Record
        data : FourDSTEM, optional
            Its measurement as it was opened; opened here if not given, which takes time.
        folder : Path, optional
            Of the record: where its start is looked for.

        Raises
        ------
        CannotReplay
            If it cannot be the same volume, with all the reasons.
        ValueError
            If another run goes on.
        """
        self.session.require_free()
        number = self.session.next_number()
        return self.take(play(record, data=data, folder=folder, number=number))

    def take(self, run: RunRecord) -> RunRecord:
        """Begin a run that was made ready elsewhere: :func:`~.replay.play` reads files.

        Raises
        ------
        ValueError
            If another run goes on.
        """
        self.session.require_free()
        run.frames = self.session.new_frames()
        return self._begin(run, None)

    def go_on(self, lost: Interrupted, data: FourDSTEM) -> RunRecord:
        """Go on with a run that was interrupted, from its last state.

        Its choices become those of the session only now, when its measurement is open.

        Parameters
        ----------
        lost : Interrupted
        data : FourDSTEM
            Its measurement, opened by ``lost.record.recipe.opening.open()``.

        Raises
        ------
        CannotReplay
            If it is another measurement.
        ValueError
            If another run goes on, another window goes on with this one already, or a setting is
            no longer valid.
        """
        self.session.require_free()
        if not lost.waiting:
            raise ValueError(
                f"{lost.name} is no longer there to go on with: it was finished or removed, or "
                "another window goes on with it"
            )
        record = lost.record
        require_same(record.recipe, data)
        opening = record.recipe.opening
        self.session.take(
            data,
            opening.path,
            **opening.model_dump(
                include={"dataset", "scan_shape", "axes", "calibration"}, exclude_defaults=True
            ),
        )
        self.session.adopt(record)
        run = self.session.restored_run(record, lost.start_array())
        return self._begin(run, None, lost)

    def pause(self) -> None:
        """Hold before the next step."""
        run = self.session.active
        if run is not None and run.state == "running":
            run.control.pause()
            self._state(run, "paused")

    def resume(self) -> None:
        """Go on."""
        run = self.session.active
        if run is not None and run.state == "paused":
            run.control.resume()
            self._state(run, "running")

    def single(self) -> None:
        """One step, then hold."""
        run = self.session.active
        if run is not None and run.state in ("running", "paused"):
            run.control.single()
            self._state(run, "paused")

    def back(self, step: int) -> None:
        """Back to the state after an earlier step; a paused run stays paused.

        The frames after that step stay, as an ended branch (:attr:`RunRecord.branches`). Where the
        solver keeps no states, the reason is told as a message.
        """
        run = self.session.active
        if run is not None:
            try:
                run.control.back(step)
            except ValueError as refusal:
                self.session.message.emit("warning", f"{run.name}: {refusal}", "")

    def stop(self, save_to: str | Path | None = None) -> None:
        """End after the present step; the volume stays. Returns at once.

        Parameters
        ----------
        save_to : path, optional
            The worker writes the volume there, with its record, when the step is done. If that
            cannot be written it goes elsewhere, and where is told.
        """
        run = self.session.active
        if run is not None:
            if self._thread is not None:
                self._thread.save_to = None if save_to is None else Path(save_to)
            run.control.stop()
            self._asked = self._asked or time.monotonic()
            self._state(run, "stopping")

    @property
    def stopping_for(self) -> float | None:
        """Seconds since the run was asked to stop; None where it was not."""
        return None if self._asked is None else time.monotonic() - self._asked

    @property
    def can_leave(self) -> bool:
        """Whether a run that shall stop takes so long that it can be let go."""
        run, since = self.session.active, self.stopping_for
        return run is not None and run.state == "stopping" and (since or 0.0) > PATIENCE

    def stop_or_leave(self) -> None:
        """End after the present step; asked again while that takes long, do not wait for it."""
        run = self.session.active
        if run is not None and run.state != "stopping":
            self.stop()
        elif self.can_leave:
            self.leave()

    def leave(self) -> None:
        """Do not wait for the last step of a run that shall stop.

        The run is let go with its last whole frame, and another can begin. What its worker still
        brings is dropped; that is told when it has come.
        """
        thread, run = self._thread, self._run
        if thread is None or run is None or run.state != "stopping" or run.outcome is not None:
            return
        run.leave()
        self._left.append(thread)
        kept = "" if run.frame is None else f", the volume of step {run.frame.step} is kept"
        text = f"{run.name} was let go in mid-step{kept}; the step itself ends in the background"
        self._finish(run)
        self.session.message.emit("info", text, "")

    @property
    def left_behind(self) -> bool:
        """Whether the last step of a run that was let go is still going on."""
        return bool(self._left)

    @property
    def busy(self) -> bool:
        """Whether a worker is at work; the outcome of its run is published after its clean-up."""
        return self._run is not None

    def wait(self, seconds: float = 30.0) -> bool:
        """For scripts: wait for the end of the run. False if it has not come in time."""
        deadline = time.monotonic() + seconds
        while self.poll():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def linger(self) -> None:
        """The program does not end before the run has, with what its thread writes at its end."""
        if self._thread is not None:
            self._thread.linger()

    def run_to_end(self) -> RunRecord | None:
        """For scripts: wait for the end of the run, however long it takes."""
        run = self._run
        while self.poll():
            time.sleep(0.01)
        return run

    # ---- its thread ------------------------------------------------------------------------
    @property
    def _run(self) -> RunRecord | None:
        return None if self._thread is None else self._thread.run

    def _begin(
        self, run: RunRecord, checkpoint: str | Path | None, lost: Interrupted | None = None
    ) -> RunRecord:
        run.resumed = lost is not None or checkpoint is not None
        thread = self._thread = RunThread(run, checkpoint, lost)
        self._shown, self._told, self._changes = None, 0, 0
        self._settings, self._asked = run.first, None
        self.session.add_run(run)
        thread.start()
        self.session.run_changed.emit(run)
        return run

    @property
    def save_to(self) -> Path | None:
        """Where the volume goes when the last step of the run is done; None: nowhere."""
        return None if self._thread is None else self._thread.save_to

    # ---- the thread that owns the session --------------------------------------------------
    def poll(self, frames: bool = True) -> bool:
        """Tell what has happened since the last call.

        Parameters
        ----------
        frames : bool
            Whether :attr:`arrived` may be emitted now; the last frame of a run always is.

        Returns
        -------
        bool
            Whether the run is still going on.
        """
        for gone in [thread for thread in self._left if not thread.alive]:
            self._left.remove(gone)
            text = f"{gone.run.name}: the step it was let go in has ended; its result was dropped"
            self.session.message.emit("info", text, "")
        run = self._run
        if run is None:
            return False
        outcome = run.outcome  # read first: what came before it is there
        if run.state == "starting" and run.problem is not None:
            stopped, paused = run.control.stopped, run.control.paused
            self._state(run, "stopping" if stopped else "paused" if paused else "running")
        frame = run.frame
        if frame is not None and frame is not self._shown and (frames or outcome is not None):
            self._shown, run.stage = frame, frame.info.stage
            self.arrived.emit(run, frame)
        changes = len(run.control.changes)
        if run.control.settings not in (None, self._settings):
            self._settings, self._changes = run.control.settings, changes
            self.session.settings_taken.emit(run, self._settings)
            self.session.run_changed.emit(run)
        elif changes != self._changes:  # one that was asked for has been made
            self._changes = changes
            self.session.run_changed.emit(run)
        notes = [*run.control.notes, *run.frames.notes]
        for note in notes[self._told :]:
            self.session.message.emit("info", f"{run.name}, {note}", "")
        self._told = len(notes)
        if outcome is not None:
            self._finish(run)
        return self._run is not None

    @property
    def newest(self) -> Frame | None:
        """The newest frame of the run, shown or not."""
        return None if self._run is None else self._run.frame

    @property
    def shown(self) -> Frame | None:
        """The frame that was last emitted."""
        return self._shown

    def _finish(self, run: RunRecord) -> None:
        assert run.outcome is not None
        if self._thread is not None:
            self._thread.release()
        self._thread = self._settings = self._asked = None
        if run.saved:
            self.session.note_exported(run.saved[:1])
        state: RunState = "failed" if run.outcome.state == "running" else run.outcome.state
        self._state(run, state)
        if state == "failed":
            step = "" if run.frame is None else f" The volume of step {run.frame.step} is kept."
            self.session.message.emit("error", f"{run.name}: {run.error}{step}", run.details)
        elif run.outcome.verdict:
            self.session.message.emit("warning", f"{run.name}: {run.outcome.verdict}", "")
        self.ended.emit(run)

    def _state(self, run: RunRecord, state: RunState) -> None:
        run.state = state
        self.session.run_changed.emit(run)
