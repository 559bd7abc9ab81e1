"""The Microscope dock: what the microscope really did, told, estimated and refined."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from ...session.microscope_look import look
from ..dock import Dock
from .convergence import ConvergenceSection
from .microscope_values import ValuesOfMicroscope
from .positions import PositionsSection
from .probe_modes import ProbeModesSection

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ...session.microscope_look import Look
    from ...session.runs import RunRecord

PAUSE = 0.8  # s between pictures of a run that goes on


class MicroscopeDock(Dock):
    """Values, probe, positions and convergence; live while a run of `refine` goes on.

    What is shown is worked out in the background, and only while the dock is in front.
    """

    title = "Microscope"

    def build(self) -> Iterator[None]:
        """Make the sections."""
        self._drawn, self._stale = 0.0, True
        self.values = ValuesOfMicroscope(self.workspace)
        self.add(self.values)
        yield
        self.probe = ProbeModesSection(self.refresh)
        self.add(self.probe)
        yield
        self.positions = PositionsSection(self.workspace)
        self.convergence = ConvergenceSection()
        self.add(self.positions, self.convergence)
        yield
        self._due = QTimer(self)
        self._due.setSingleShot(True)
        self._due.timeout.connect(self.refresh)
        s = self.session
        self.listen(self.workspace.microscopes.changed, self.soon)
        self.listen(s.summary_changed, self.soon)
        self.listen(s.choices_changed, self._chosen)
        self.listen(s.run_changed, self._run_changed)
        self.listen(s.frame_shown, self._frame)
        self.values.update_sources()
        self.values.update_buttons()
        self.refresh()

    def showEvent(self, event: Any) -> None:
        """In front again: show what has come meanwhile."""
        super().showEvent(event)
        if self.built and self._stale:
            self.soon()

    @property
    def built(self) -> bool:
        """Whether all sections are there."""
        return hasattr(self, "_due")

    def _chosen(self, old: Any, new: Any) -> None:
        if old.settings != new.settings or old.setup != new.setup:
            self.soon()

    def _run_changed(self, run: RunRecord) -> None:
        self.values.update_buttons()
        if run.solver == "refine" and not run.going_on:
            self.soon()

    def _frame(self, run: RunRecord) -> None:
        if run.solver == "refine" and not self._due.isActive():
            left = PAUSE - (time.monotonic() - self._drawn)
            self._due.start(max(0, round(1e3 * left)))

    def soon(self) -> None:
        """Show anew in the next turn of the event loop, once, however much changes in this."""
        self._due.start(0)

    def refresh(self) -> None:
        """Work out what is to be shown, in the background, and show it."""
        self._stale = not self.isVisible()
        if self._stale:
            return
        self._drawn = time.monotonic()
        microscopes, data = self.workspace.microscopes, self.session.data
        source, estimated = microscopes.source, microscopes.estimated
        settings, mode = microscopes.next_settings(), self.probe.mode.value() - 1
        self.values.update_sources()
        self.convergence.show_run(microscopes.run)

        def work(_report: Report) -> Look:
            return look(data, estimated, microscopes.read_off(source), settings, mode)

        def done(found: Look) -> None:
            if self.session.data is data:
                self.values.show_look(found)
                self.probe.show_look(found)
                self.positions.show_look(found)

        self.workspace.jobs.run("microscope", "microscope", work, done, shown_in=self)
