"""Runner: a solver in a worker thread, its newest frame in a one-slot mailbox, a timer in the GUI thread that empties it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from . import recovery
from .collector import collector
from .guard import avoid_llvm_clash
from .record import RunRecord

if TYPE_CHECKING:
    from .session import Session

LOOK = 20  # ms between looks into the mailbox
FASTEST = 0.08  # s between pictures
SHARE = 22  # at most one part in so many of the GUI thread's time for pictures; OpenGL in software costs twice that again
FRESH = 0.05  # s
SETTLED = 60  # ms after which a picture is on the screen
AUTOSAVE = 60.0  # s


class Runner(QObject):
    """Runs of a session, one at a time.

    The worker never touches Qt or napari. What watches a run connects to :attr:`arrived`,
    which is emitted in the GUI thread with the
    newest frame, never with one that has been overtaken.
    """

    arrived = Signal(object, object)  # RunRecord, Frame

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self._thread: threading.Thread | None = None
        self._run: RunRecord | None = None
        self._outcome: tuple[str, BaseException | None] | None = None
        self._shown: Any = None
        self._told: list[str] = []
        self._not_before = self._came = self._between = 0.0
        self._newest: Any = None
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK)
        self._timer.timeout.connect(self._poll)

    # ---- what a user does --------------------------------------------------------------------------------------
    def start(self, start: Any = None, checkpoint: Any = None) -> RunRecord:
        """Begin a run with the session's choices.

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
        avoid_llvm_clash()
        run = self.session.new_run(start)
        self._run, self._outcome, self._shown, self._told = run, None, None, []
        self.session.add_run(run)
        collector().hold()
        self._thread = threading.Thread(target=self._work, args=(run, checkpoint), name=f"mepdiff {run.name}", daemon=True)
        self._thread.start()
        self._not_before = self._came = self._between = 0.0
        self._newest = None
        self._timer.start()
        self._changed(run)
        return run

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
        """Back to the state after an earlier step; a paused run stays paused."""
        run = self.session.active
        if run is not None:
            run.control.back(step)

    def stop(self) -> None:
        """End after the present step; the volume stays."""
        run = self.session.active
        if run is not None:
            run.control.stop()
            self._state(run, "stopping")

    def wait(self, seconds: float = 30.0) -> bool:
        """Wait for the worker to end (closing). False if it did not in time."""
        if self._thread is not None:
            self._thread.join(seconds)
            ended = not self._thread.is_alive()
            if ended:
                self._poll()
            return ended
        return True

    # ---- the worker --------------------------------------------------------------------------------------------
    def _work(self, run: RunRecord, checkpoint: Any) -> None:
        """In the thread. Any error becomes the outcome; a generator worker would swallow RuntimeErrors."""
        keeper = recovery.Keeper(run, AUTOSAVE)
        try:
            from ..devices import require_device
            from ..reconstruction.problem import Problem
            from ..reconstruction.registry import solve

            require_device(run.setup.device)
            run.problem = Problem.from_data(run.data, slices=run.setup.slices, slice_thickness=run.setup.slice_thickness,
                                            modes=run.setup.modes, device=run.setup.device)
            run.stage = "first step"
            for frame in solve(run.problem, run.first, run.control, start=run.start, checkpoint=checkpoint or keeper.checkpoint,
                               every=AUTOSAVE):
                run.frames.append(frame)
                keeper.volume()
            self._outcome = ("stopped" if run.control.stopped else "done", None)
        except BaseException as error:
            self._outcome = ("failed", error)
        finally:
            keeper.close(finished=self._outcome is not None and self._outcome[0] != "failed")
            _free_device(run.setup.device)

    # ---- the GUI thread ----------------------------------------------------------------------------------------
    def _poll(self) -> None:
        run = self._run
        if run is None:
            return
        if run.state == "starting" and run.problem is not None:
            self._state(run, "stopping" if run.control.stopped else "paused" if run.control.paused else "running")
        outcome = self._outcome
        frame = run.frame
        begin = time.perf_counter()
        if frame is not self._newest:
            self._newest, self._between, self._came = frame, begin - self._came, begin
        if frame is not None and frame is not self._shown and (self._due(run, begin) or outcome is not None):
            self._shown = frame
            run.stage = str(frame.info.get("stage", ""))
            self._not_before = begin + FASTEST
            spent = time.thread_time()
            self.arrived.emit(run, frame)
            QTimer.singleShot(SETTLED, lambda: self._pace(begin, time.thread_time() - spent))
        for note in [*run.control.notes, *run.frames.notes]:
            if note not in self._told:
                self._told.append(note)
                self.session.message.emit("info", f"{run.name}, {note}", "")
        if outcome is not None:
            self._finish(run, *outcome)

    def _due(self, run: RunRecord, now: float) -> bool:
        """Whether the newest frame shall be shown now: the last picture is long enough ago, and the frame has just come.

        Of quick solvers a frame that had to wait is left out, for the next one is about to come and will be on the screen sooner.
        """
        if now < self._not_before:
            return False
        age = now - self._came
        return age <= FRESH or age >= min(0.4, 1.5 * self._between) or run.state != "running"

    def _pace(self, begin: float, cost: float) -> None:
        """Slower pictures where they are dear (OpenGL in software), so that watching leaves the solver its time.

        `cost` is processor time of the GUI thread: unlike time on the clock it does not grow with what the solver takes.
        """
        self._not_before = begin + max(FASTEST, min(2.0, SHARE * cost))

    def _finish(self, run: RunRecord, state: str, error: BaseException | None) -> None:
        self._timer.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        self._thread = self._run = self._outcome = None
        collector().release()
        if error is not None:
            run.error = plain_words(error)
            import traceback

            run.details = "".join(traceback.format_exception(error))
            error.__traceback__ = None  # its frames hold tensors
        run.start = None
        self._state(run, state)
        if error is not None:
            kept = "" if run.frame is None else f" The volume of step {run.frame.step} is kept."
            self.session.message.emit("error", f"{run.name}: {run.error}{kept}", run.details)

    def _state(self, run: RunRecord, state: str) -> None:
        run.state = state  # type: ignore[assignment]
        self._changed(run)

    def _changed(self, run: RunRecord) -> None:
        self.session.run_changed.emit(run)


def plain_words(error: BaseException) -> str:
    """What went wrong and what to do."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if name in ("OutOfMemoryError",) or "out of memory" in text.lower():
        return "the device has not enough memory: crop the field, use fewer samples or slices, or choose the CPU"
    if isinstance(error, MemoryError):
        return text or "this machine has not enough memory: crop or bin the data"
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return text or name


def _free_device(device: str) -> None:
    """Give cached memory of a GPU back once nothing uses it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
