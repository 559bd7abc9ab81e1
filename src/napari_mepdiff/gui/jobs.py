"""Jobs: work beside the GUI thread that is no solver's (opening, virtual images, metrics, export, films); progress and cancel."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from .collector import collector

Report = Callable[[float], None]
PATIENCE = 0.3  # s


class Cancelled(Exception):
    """The user ended a job."""


class Job(QObject):
    """One piece of work in a thread of its own.

    The function is called with a ``report(fraction)`` that it may call as often as it likes; after :meth:`cancel` that raises
    :class:`Cancelled` inside it. Results come back in the GUI thread.

    Parameters
    ----------
    title : str
        What is being done, for people.
    function : callable
    done, failed : callable, optional
        Called in the GUI thread with the result, or the exception.
    """

    progressed = Signal(float)
    ended = Signal(object)  # the job

    def __init__(self, title: str, function: Callable[[Report], Any], done: Callable[[Any], None] | None = None,
                 failed: Callable[[BaseException], None] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.title, self._function, self._done, self._failed = title, function, done, failed
        self._out: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._fraction = self.shown = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(30)
        self._timer.timeout.connect(self._poll)
        self._thread = threading.Thread(target=self._work, name=f"mepdiff {title}", daemon=True)
        self.over = False

    def start(self) -> Job:
        """Begin."""
        self._began = time.monotonic()
        collector().hold()
        self._thread.start()
        self._timer.start()
        return self

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def cancel(self) -> None:
        """Ask it to end; its result is dropped."""
        self._cancel.set()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        self._thread.join(seconds)
        self._poll()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end."""
        return self._cancel.is_set()

    def _report(self, fraction: float) -> None:
        if self._cancel.is_set():
            raise Cancelled(self.title)
        self._fraction = fraction

    def _work(self) -> None:
        try:
            result = self._function(self._report)
        except Cancelled:
            self._out.put(("cancelled", None))
        except BaseException as error:
            self._out.put(("failed", error))
        else:
            self._out.put(("done", result))

    def _poll(self) -> None:
        if self._fraction != self.shown:
            self.shown = self._fraction
            self.progressed.emit(self.shown)
        try:
            state, value = self._out.get_nowait()
        except queue.Empty:
            return
        self._timer.stop()
        self._thread.join(1.0)
        collector().release()
        self.over = True
        done, failed = self._done, self._failed
        self._done = self._failed = None
        self._function = lambda report: None  # frees what it holds
        if not self._cancel.is_set():
            if state == "done" and done is not None:
                done(value)
            elif state == "failed" and failed is not None:
                failed(value)
        self.ended.emit(self)
        self.deleteLater()


class Jobs(QObject):
    """The jobs of a session: one at a time for each purpose, the newest wins."""

    changed = Signal()

    def __init__(self, report_error: Callable[[BaseException, str], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._report_error = report_error
        self._running: dict[str, Job] = {}
        self._waiting: dict[str, tuple[Any, ...]] = {}
        self._shut = False

    @property
    def running(self) -> list[Job]:
        """Jobs that are at work."""
        return list(self._running.values())

    def run(self, purpose: str, title: str, function: Callable[[Report], Any], done: Callable[[Any], None] | None = None,
            failed: Callable[[BaseException], None] | None = None) -> None:
        """Begin a job. If one of that purpose is at work this one begins when it has ended, for which a slow one is cancelled."""
        if self._shut:
            return
        if purpose in self._running:
            self._waiting[purpose] = (title, function, done, failed)
            if self._running[purpose].age > PATIENCE:  # a quick one may finish: dragging then shows pictures on the way
                self._running[purpose].cancel()
            return
        job = Job(title, function, done, failed or (lambda error: self._report_error(error, title)), self)
        job.ended.connect(lambda _job, name=purpose: self._ended(name))
        self._running[purpose] = job
        job.start()
        self.changed.emit()

    def cancel(self, purpose: str | None = None) -> None:
        """End the job of a purpose, or all."""
        for name in [purpose] if purpose else list(self._running):
            self._waiting.pop(name, None)
            if name in self._running:
                self._running[name].cancel()

    def shut(self, seconds: float = 5.0) -> None:
        """End all jobs and wait for them, at most so long each."""
        self._shut = True
        self._waiting.clear()
        for job in self.running:
            job.cancel()
            job.wait(seconds)

    def busy(self, purpose: str) -> bool:
        """Whether a job of that purpose is at work or waits."""
        return purpose in self._running or purpose in self._waiting

    def _ended(self, purpose: str) -> None:
        self._running.pop(purpose, None)
        following = self._waiting.pop(purpose, None)
        if following is not None:
            self.run(purpose, *following)
        self.changed.emit()
