"""Jobs: work beside the runs (opening, metrics, export, films), with progress and cancel. No Qt.

Each job runs in a thread of its own. What comes of it is told by :meth:`Jobs.poll`, in the thread
that calls it: the GUI's timer does so, or a script.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from psygnal import Signal

log = logging.getLogger(__name__)
Report = Callable[[float], None]
PATIENCE = 0.3  # s that a job may go on when a newer one of its purpose waits


class Cancelled(Exception):
    """The user ended a job."""


class Job:
    """One piece of work in a thread of its own.

    The function is called with a ``report(fraction)`` that it may call as often as it likes; after
    :meth:`cancel` that raises :class:`Cancelled` inside it.

    Parameters
    ----------
    title : str
        What is being done, for people.
    function : callable
    done, failed : callable, optional
        Called by :meth:`poll` with the result, or the exception; not after :meth:`cancel`.
    """

    progressed = Signal(float)
    ended = Signal(object)  # the job

    def __init__(
        self,
        title: str,
        function: Callable[[Report], Any],
        done: Callable[[Any], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.title = title
        self._function: Callable[[Report], Any] | None = function
        self._done, self._failed = done, failed
        self._future: Future[Any] = Future()
        self._cancel = threading.Event()
        self._fraction = self.shown = 0.0
        self._began = time.monotonic()
        self.over = False

    def start(self) -> Job:
        """Begin."""
        self._began = time.monotonic()
        threading.Thread(target=self._work, name=f"mepdiff {self.title}", daemon=True).start()
        return self

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def cancel(self) -> None:
        """Ask it to end; its result is dropped."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end."""
        return self._cancel.is_set()

    @property
    def at_work(self) -> bool:
        """Whether its thread has not come to its end."""
        return not self._future.done()

    def _report(self, fraction: float) -> None:
        if self._cancel.is_set():
            raise Cancelled(self.title)
        self._fraction = fraction

    def _work(self) -> None:
        function, self._function = self._function, None  # frees what it holds when it has ended
        assert function is not None
        try:
            result = function(self._report)
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    def poll(self) -> bool:
        """Tell progress, or the end. Returns whether it is still at work."""
        if self._fraction != self.shown:
            self.shown = self._fraction
            self.progressed.emit(self.shown)
        if not self._future.done() or self.over:
            return not self.over
        self.over = True
        future, self._future = self._future, Future()
        self._future.cancel()
        done, failed = self._done, self._failed
        self._done = self._failed = None
        error = future.exception()
        if isinstance(error, Cancelled):
            log.debug("%s was cancelled", self.title)
        elif error is not None:
            log.info("%s failed: %s", self.title, error)
            if failed is not None and not self.cancelled:
                failed(error)
        elif done is not None and not self.cancelled:
            done(future.result())
        self.ended.emit(self)
        return False


class Jobs:
    """The jobs of a session: one at a time for each purpose, the newest wins.

    Parameters
    ----------
    report_error : callable
        Called with the exception and the title of a job that failed and says nothing itself.
    """

    changed = Signal()

    def __init__(self, report_error: Callable[[BaseException, str], None]) -> None:
        self._report_error = report_error
        self._running: dict[str, Job] = {}
        self._waiting: dict[str, tuple[Any, ...]] = {}
        self._shut = False

    @property
    def running(self) -> list[Job]:
        """Jobs that are at work."""
        return list(self._running.values())

    def run(
        self,
        purpose: str,
        title: str,
        function: Callable[[Report], Any],
        done: Callable[[Any], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Begin a job.

        If one of that purpose is at work this one begins when it has ended, for which a slow one
        is cancelled; a quick one may finish, so that dragging shows pictures on the way.
        """
        if self._shut:
            return
        if purpose in self._running:
            self._waiting[purpose] = (title, function, done, failed)
            if self._running[purpose].age > PATIENCE:
                self._running[purpose].cancel()
            return
        job = Job(title, function, done, failed or (lambda error: self._report_error(error, title)))
        self._running[purpose] = job
        job.start()
        self.changed.emit()

    def poll(self) -> bool:
        """Tell what has happened since the last call. Returns whether anything is at work."""
        for purpose, job in list(self._running.items()):
            if not job.poll():
                if self._running.get(purpose) is job:
                    self._running.pop(purpose)
                following = self._waiting.pop(purpose, None)
                if following is not None:
                    self.run(purpose, *following)
                self.changed.emit()
        return bool(self._running)

    def cancel(self, purpose: str | None = None) -> None:
        """End the job of a purpose, or all."""
        for name in [purpose] if purpose else list(self._running):
            self._waiting.pop(name, None)
            if name in self._running:
                self._running[name].cancel()

    def shut(self) -> None:
        """End all jobs; returns at once. Results that still come are dropped."""
        self._shut = True
        self._waiting.clear()
        for job in self.running:
            job.cancel()

    def wait(self, seconds: float = 30.0) -> bool:
        """For scripts: until nothing is at work. False if that has not come in time."""
        deadline = time.monotonic() + seconds
        while self.poll():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def busy(self, purpose: str) -> bool:
        """Whether a job of that purpose is at work or waits."""
        return purpose in self._running or purpose in self._waiting
