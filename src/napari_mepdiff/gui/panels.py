"""Panels: what napari opens by the manifest, at once; each is filled with its dock when PyTorch is
there."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QSizePolicy, QVBoxLayout, QWidget

from .loading import loading
from .viewers import itself

if TYPE_CHECKING:
    from .dock import Dock

SIZE = QSize(380, 560)
FILLED = object()
FAILED = (
    "PyTorch could not be loaded: {error}\n\nOn Windows it has to be loaded before Qt: start "
    'napari with  python -c "import torch, napari; napari.Viewer(); napari.run()"'
)


class Panel(QWidget):
    """Holds one dock.

    Attributes
    ----------
    dock : Dock or None
        None while PyTorch is being loaded, and until it is filled.
    """

    source = ""  # module and class of the dock
    title = ""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.dock: Dock | None = None
        self._viewer: Any = itself(napari_viewer)
        self._housed = False  # whether it has been shown in a window
        self.note = QLabel("loading PyTorch …")
        self.note.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.note.setWordWrap(True)
        self.note.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        # else napari would put a stretch below
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.note)
        loading().then(self._fill)

    def _fill(self) -> None:
        viewer, self._viewer = self._viewer, None
        try:
            self.parent()
        except RuntimeError:  # closed meanwhile
            return
        if loading().error is not None:
            self.note.setText(FAILED.format(error=loading().error))
            return
        module, name = self.source.split(":")
        kind = getattr(importlib.import_module(module, __package__), name)
        dock = kind(viewer, self)
        self.layout().addWidget(dock)
        self._turn(dock, dock.fill())

    def _turn(self, dock: Dock, parts: Iterator[None]) -> None:
        """The next part of the dock; the window draws, and takes clicks, before the one after."""
        if not (isalive(self) and isalive(dock)):
            return
        self.note.hide()
        if next(parts, FILLED) is FILLED:
            self.dock = dock
            self._watch()
        else:
            QTimer.singleShot(0, lambda: self._turn(dock, parts))

    def sizeHint(self) -> QSize:
        """As the docks will want it."""
        return SIZE

    def showEvent(self, event: Any) -> None:
        """The panel has a window now."""
        super().showEvent(event)
        parent: Any = self
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parentWidget()
        if parent is not None:
            self._housed = True
            parent.setWindowTitle(self.title)  # six tabs have to fit beside each other
        self._watch()

    def _watch(self) -> None:
        if self.dock is not None:
            self.dock.workspace.watch_window(self)

    def event(self, event: Any) -> bool:
        """Taken out of the window, it has Qt delete it: garbage collection might, in any thread."""
        if event.type() == QEvent.Type.ParentChange and self._housed and self.parent() is None:
            QTimer.singleShot(0, self._leave)
        return bool(super().event(event))

    def _leave(self) -> None:
        if self.parent() is None:
            self.deleteLater()


class DataPanel(Panel):
    """4D-STEM data: open, look, calibrate, orient."""

    source, title = ".docks.data:DataDock", "Data"


class MicroscopePanel(Panel):
    """What the microscope really did."""

    source, title = ".docks.microscope:MicroscopeDock", "Microscope"


class ReconstructPanel(Panel):
    """Runs: choose, start, watch, look back."""

    source, title = ".docks.reconstruct:ReconstructDock", "Reconstruct"


class GuidancePanel(Panel):
    """How strongly the data steer."""

    source, title = ".docks.guidance:GuidanceDock", "Guidance"


class ComparePanel(Panel):
    """A run against its ground truth, another run or any volume."""

    source, title = ".docks.compare:CompareDock", "Compare"


class ExportPanel(Panel):
    """Files of what was found."""

    source, title = ".docks.export:ExportDock", "Export"
