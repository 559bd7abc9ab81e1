"""Jobs of the docks: those of the session, told in the GUI thread by a timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer

from ..session import jobs
from ..session.jobs import Cancelled, Job, Report

__all__ = ["Cancelled", "Job", "Jobs", "Report"]
LOOK = 30  # ms between looks


class Jobs(jobs.Jobs):
    """The jobs of a workspace; results come back in the GUI thread."""

    def __init__(
        self, report_error: Callable[[BaseException, str], None], parent: QObject | None = None
    ) -> None:
        super().__init__(report_error)
        self._timer = QTimer(parent)
        self._timer.setInterval(LOOK)
        self._timer.timeout.connect(self._look)

    def run(
        self,
        purpose: str,
        title: str,
        function: Callable[[Report], Any],
        done: Callable[[Any], None] | None = None,
        failed: Callable[[BaseException], None] | None = None,
        *,
        shown_in: QObject | None = None,
    ) -> None:
        """As in :class:`~napari_mepdiff.session.jobs.Jobs`.

        What is only shown in a widget is dropped where Qt has deleted that in the meantime, as
        when its dock was taken out of the window.
        """
        if shown_in is not None:
            done, failed = _while_alive(shown_in, done), _while_alive(shown_in, failed)
        super().run(purpose, title, function, done, failed)
        if self.running and not self._timer.isActive():
            self._timer.start()

    def _look(self) -> None:
        if not self.poll():
            self._timer.stop()


def _while_alive(
    owner: QObject, slot: Callable[[Any], None] | None
) -> Callable[[Any], None] | None:
    if slot is None:
        return None

    def guarded(found: Any) -> None:
        if isalive(owner):
            slot(found)

    return guarded
