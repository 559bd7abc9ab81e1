"""What the misfit of a run is made of, and buttons that do something about it: a part of the
Reconstruct dock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ...reconstruction.diagnosis import MUCH
from ...session.diagnosing import apply, diagnose_run, remedies_of, worth_it
from ..widgets.basic import Section, button, row, words
from ..widgets.picture import Picture

if TYPE_CHECKING:
    from ...reconstruction.diagnosis import Diagnosis, Remedy
    from ...session.jobs import Report
    from ...session.runs import RunRecord
    from ..workspace import Workspace

HEIGHT = 150  # px


class DiagnosisSection(Section):
    """Hidden until a run has ended whose misfit is well above shot noise.

    Parameters
    ----------
    workspace : Workspace
    selected : callable
        The run that the dock shows, or None.
    """

    def __init__(self, workspace: Workspace, selected: Callable[[], RunRecord | None]) -> None:
        super().__init__("Why the misfit is so large")
        self.workspace, self.session = workspace, workspace.session
        self._selected = selected
        self._asked: set[str] = set()  # names of runs that were looked at without being asked
        self.said = words("", small=True)
        self.ask = button(
            "Diagnose",
            "Model some patterns of this volume, and find what of the microscope would make them "
            "fit better",
            self.diagnose,
        )
        self.detector = Picture("measured − model (shot noise)", "mrad", HEIGHT, "twilight_shifted")
        self.angles = Picture("misfit / shot noise", "mrad", HEIGHT)
        self.pictures = row(self.detector, self.angles)
        self.buttons = QWidget()
        self._column = QVBoxLayout(self.buttons)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)
        self.add(self.said, self.pictures, self.buttons, row(self.ask, stretch=True))
        self.hide()

    def run_ended(self, run: RunRecord) -> None:
        """Look for the cause by itself, once, where the misfit asks for it."""
        if worth_it(run) and run.diagnosis is None and run.name not in self._asked:
            self._asked.add(run.name)
            self._begin(run)
        self.show_run()

    def show_run(self) -> None:
        """What is known of the run that is chosen."""
        run = self._selected()
        ended = run is not None and run.frame is not None and not run.going_on
        if run is None or not ended or not (run.diagnosis or not run.frame.loss <= MUCH):
            self.hide()
            return
        self.show()
        found = run.diagnosis
        self.said.setText("" if found is None else str(found))
        self.ask.setText("Diagnose" if found is None else "Diagnose again")
        self.pictures.setVisible(found is not None and found.pictures is not None)
        self._fill(remedies_of(self.session, run))
        if found is not None:
            self._draw(found)

    def diagnose(self) -> None:
        """Of the run that is chosen."""
        run = self._selected()
        if run is not None:
            self._begin(run)

    def _begin(self, run: RunRecord) -> None:
        def work(report: Report) -> Diagnosis:
            return diagnose_run(run, report)

        def done(_: Any) -> None:
            self.session.run_changed.emit(run)
            self.show_run()

        title = f"looking for the cause of the misfit of {run.name}"
        self.workspace.jobs.run("diagnose", title, work, done, shown_in=self)

    def _fill(self, remedies: tuple[Remedy, ...]) -> None:
        while self._column.count():
            gone = self._column.takeAt(0).widget()
            gone.hide()
            gone.deleteLater()
        for remedy in remedies:
            tip = f"Change the choices for the next run ({remedy.option or 'undo takes it back'})"
            self._column.addWidget(button(remedy.title, tip, partial(self._apply, remedy)))
        self.buttons.setVisible(bool(remedies))

    def _apply(self, remedy: Remedy) -> None:
        def change() -> None:
            apply(self.session, remedy)

        try:
            if self.workspace.when_looked(change, f"not done: {remedy.title}"):
                self.session.message.emit("info", f"for the next run: {remedy.title}", "")
        except ValueError as error:
            self.session.report(error, remedy.title)

    def _draw(self, found: Diagnosis) -> None:
        p = found.pictures
        if p is None:
            return
        residual = np.nan_to_num(p.residual)
        top = float(np.percentile(np.abs(residual), 99.5)) or 1.0
        self.detector.show_image(residual, p.pixel_mrad, levels=(-top, top), unit="mrad")
        chi2 = np.nan_to_num(p.chi2)
        most = max(2.0, float(np.percentile(chi2, 99.5)))
        self.angles.show_image(chi2, p.pixel_mrad, levels=(0.0, most), unit="mrad")
