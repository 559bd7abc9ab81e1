"""Garbage collection in the GUI thread only, while workers are busy.

Python collects cyclic garbage in whichever thread happens to allocate. If that is a worker, a Qt object in the garbage is destroyed
outside the GUI thread, which can crash the process (pyqtgraph's items are often in cycles). So automatic collection is held while
workers are at work, and a timer in the GUI thread does it at Python's own thresholds. What exists already is frozen meanwhile,
which
keeps each collection to a few milliseconds.
"""

from __future__ import annotations

import gc

from qtpy.QtCore import QObject, QTimer


class Collector(QObject):
    """Counts the workers; see the module."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._workers = 0
        self._timer = QTimer(self)
        self._timer.setInterval(250)
        self._timer.timeout.connect(self.collect)

    def hold(self) -> None:
        """A worker begins."""
        self._workers += 1
        if self._workers == 1 and gc.isenabled():
            gc.disable()
            gc.freeze()
            self._timer.start()

    def release(self) -> None:
        """A worker has ended."""
        self._workers = max(0, self._workers - 1)
        if self._workers == 0 and self._timer.isActive():
            self._timer.stop()
            gc.unfreeze()
            gc.enable()

    @staticmethod
    def collect() -> None:
        """Collect the generations that are due."""
        for generation, (count, threshold) in enumerate(zip(gc.get_count(), gc.get_threshold(), strict=True)):
            if count > threshold:
                gc.collect(generation)


_COLLECTOR: list[Collector] = []


def collector() -> Collector:
    """The one of this process."""
    if not _COLLECTOR:
        _COLLECTOR.append(Collector())
    return _COLLECTOR[0]
