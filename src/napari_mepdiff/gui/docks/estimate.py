"""How long a run would take: a line of the Reconstruct dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from ..widgets.basic import words

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ..workspace import Workspace

PAUSE = 500  # ms after the last change of a setting


class EstimateLine(QObject):
    """Time and memory of the run that *Start* would begin; measured beside the window.

    Parameters
    ----------
    workspace : Workspace
    parent : QObject
    """

    def __init__(self, workspace: Workspace, parent: QObject) -> None:
        super().__init__(parent)
        self.workspace, self.session = workspace, workspace.session
        self.text = words("", small=True)
        self._estimated: tuple[Any, str] = (None, "")  # for which choices, and the words
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(PAUSE)
        self._wait.timeout.connect(self.estimate)

    def soon(self) -> None:
        """Once nothing has been changed for a moment."""
        self._wait.start()

    def forget(self) -> None:
        """Another measurement."""
        self._estimated = (None, "")

    def changed(self) -> None:
        """A setting may have changed: what no longer holds is not shown."""
        key, found = self._estimated
        self.text.setText(found if self._key() == key else "")
        self.soon()

    def _key(self) -> Any:
        """What an estimate depends on."""
        choices = self.session.choices
        return (
            choices.setup,
            choices.settings.get(choices.setup.solver),
            choices.preparation,
            self.session.path,
        )

    def estimate(self) -> None:
        """Measure how long the run would take, in the background."""
        data, session = self.session.data, self.session
        if data is None or session.active is not None or self.workspace.jobs.busy("look"):
            if data is not None and session.active is None:
                self.soon()
            return
        setup = session.choices.setup
        key = self._key()
        if self._estimated[0] == key:
            self.text.setText(self._estimated[1])
            return
        try:
            settings = session.run_settings()
        except ValueError as error:
            self.text.setText(str(error))
            return

        def work(_report: Report) -> Any:
            from ...reconstruction.estimate import estimate
            from ...session.measured import outline

            return estimate(outline(data, setup, settings), settings)

        def done(found: Any) -> None:
            if key != self._key():
                return
            self._estimated = (key, f"Estimated: {found}.")
            self.text.setText(self._estimated[1])

        self.workspace.jobs.run(
            "estimate",
            "estimating time and memory",
            work,
            done,
            lambda error: self.text.setText(f"No estimate: {error}"),
            shown_in=self,
        )
