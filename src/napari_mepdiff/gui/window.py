"""The window of a viewer: what is asked when it is closed in mid-run, and what happens then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QMessageBox, QWidget

from .preferences import preference

if TYPE_CHECKING:
    from ..session.runs import RunRecord


class Window(QObject):
    """Watches the window that the docks stand in.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Any) -> None:
        super().__init__(workspace)
        self._workspace, self._window, self._closed = workspace, None, False
        self.ask: Callable[[RunRecord], str] = self.ask_closing

    def watch(self, widget: QWidget) -> None:
        """Called by each dock when it is shown."""
        window: Any = widget.window()
        if self._window is None and window is not None and window.inherits("QMainWindow"):
            self._window = window
            window.installEventFilter(self)
            window.destroyed.connect(self._workspace.close)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Closing the window: ask where a run goes on, remember the choices."""
        if event.type() == QEvent.Type.Close and watched is self._window and not self._closed:
            if not self.may_close():
                event.ignore()
                return True
            self._workspace.remember()
            QTimer.singleShot(0, self._close_if_gone)  # napari may ask too, and the user may stay
        return False

    def _close_if_gone(self) -> None:
        try:
            gone = self._window is None or not self._window.isVisible()
        except RuntimeError:  # its C++ part is deleted
            gone = True
        if gone:
            self._workspace.close()

    def may_close(self) -> bool:
        """Ask what shall become of a run that goes on. False: stay.

        Nothing is waited for: the run ends after its present step, its volume is written by its
        own thread, and the program stays until that is done.
        """
        run = self._workspace.session.active
        if run is None:
            return True
        answer = self.ask(run) if preference("ask_before_closing", True) else "save"
        if answer == "cancel":
            return False
        if answer == "save":
            self._workspace.runner.stop(self.partial_path(run))
            self._workspace.runner.linger()
        else:
            self._workspace.runner.stop()
        return True

    def ask_closing(self, run: RunRecord) -> str:
        """'save', 'discard' or 'cancel'."""
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("A reconstruction is going on")
        step = "no step yet" if run.frame is None else f"step {run.frame.step} of {run.frame.total}"
        box.setText(f"{run.name} is going on ({step}).")
        box.setInformativeText(
            "It can end after its present step, and its volume be written then, to\n"
            f"{self.partial_path(run)}\n"
            "The window closes at once; the program ends when that is done."
        )
        save = box.addButton("Stop, save and close", QMessageBox.ButtonRole.AcceptRole)
        discard = box.addButton("Close without saving", QMessageBox.ButtonRole.DestructiveRole)
        stay = box.addButton("Stay", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(stay)
        box.exec()
        clicked = box.clickedButton()
        return "save" if clicked is save else "discard" if clicked is discard else "cancel"

    def partial_path(self, run: RunRecord) -> Path:
        """Where the partial volume of a run goes: the export folder; never over another file."""
        from ..session.saving import unused

        return unused(self._workspace.export_folder() / f"{run.file_stem}_partial.h5")

    def close(self) -> None:
        """Let the window go."""
        self._closed = True
        with contextlib.suppress(RuntimeError):  # its C++ part may be deleted
            if self._window is not None:
                self._window.removeEventFilter(self)
                self._window.destroyed.disconnect(self._workspace.close)
        self._window = None
