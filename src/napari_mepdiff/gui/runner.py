"""Runner of the docks: that of the session, looked at by a timer in the GUI thread.

Of quick solvers frames are left out, and pictures are paced so that watching leaves the solver its
time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from ..session import runner

if TYPE_CHECKING:
    from ..session.runs import RunRecord
    from ..session.session import Session

LOOK = 20  # ms between looks
FASTEST = 0.08  # s between pictures
# at most one part in so many of the GUI thread's time goes to pictures; OpenGL in software costs
# twice that again
SHARE = 22
FRESH = 0.05  # s
SETTLED = 60  # ms after which a picture is on the screen


class Runner(runner.Runner):
    """Runs of a session, one at a time; what happens is told in the GUI thread."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(session)
        self._not_before = self._came = self._between = 0.0
        self._seen: Any = None
        self._timer = QTimer(parent)
        self._timer.setInterval(LOOK)
        self._timer.timeout.connect(self._look)

    def _begin(self, run: RunRecord, checkpoint: Any, lost: Any = None) -> RunRecord:
        self._not_before = self._came = self._between = 0.0
        self._seen = None
        super()._begin(run, checkpoint, lost)
        self._timer.start()
        return run

    def stop_watching(self) -> None:
        """The window is gone: a run that goes on ends after its present step, unwatched."""
        self._timer.stop()
        if self.session.active is not None:
            self.stop(self.save_to)

    def _look(self) -> None:
        begin, frame = time.perf_counter(), self.newest
        if frame is not None and frame is not self._seen:
            self._seen, self._between, self._came = frame, begin - self._came, begin
        before, spent = self.shown, time.thread_time()
        going_on = self.poll(frames=self._due(begin))
        if self.shown is not before:
            self._not_before = begin + FASTEST
            QTimer.singleShot(SETTLED, lambda: self._pace(begin, time.thread_time() - spent))
        if not going_on and not self.left_behind:
            self._timer.stop()

    def _due(self, now: float) -> bool:
        """Whether to show the newest frame now: the last is long enough ago, this has just come.

        Of quick solvers a frame that had to wait is left out, for the next one is about to come
        and will be on the screen sooner.
        """
        if now < self._not_before:
            return False
        age, run = now - self._came, self.session.active
        quiet = run is None or run.state != "running"
        return age <= FRESH or age >= min(0.4, 1.5 * self._between) or quiet

    def _pace(self, begin: float, cost: float) -> None:
        """Slower pictures where they are dear (OpenGL in software): the solver needs the time.

        `cost` is processor time of the GUI thread: unlike time on the clock it does not grow with
        what the solver takes.
        """
        self._not_before = begin + max(FASTEST, min(2.0, SHARE * cost))
