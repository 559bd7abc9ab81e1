"""Dock: what the five docks have in common."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QTabBar, QWidget

from .plots import Picture, Plot
from .theme import theme_colours
from .widgets import Busy, Page, Section
from .workspace import workspace_of


class Dock(Page):
    """A page over the workspace of a viewer: messages, progress of jobs, theme, life and death.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    title = ""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.workspace = workspace_of(napari_viewer)
        self.session = self.workspace.session
        self.viewer = self.workspace.viewer
        self._links: list[tuple[Any, Any]] = []
        self.busy = Busy(self.workspace.jobs)
        self.layout().insertWidget(1, self.busy)
        self.build()
        self.listen(self.session.message, self.notice.say)
        self.listen(self.viewer.events.theme, self._theme)
        self.destroyed.connect(_Cut(self._links))
        self._theme()

    def build(self) -> None:
        """Make the sections; each dock has its own."""
        raise NotImplementedError

    def listen(self, signal: Any, slot: Any) -> None:
        """Connect for as long as the dock lives."""
        signal.connect(slot)
        self._links.append((signal, slot))

    def showEvent(self, event: Any) -> None:
        """The dock has a window now."""
        super().showEvent(event)
        self.workspace.watch_window(self)
        window = self.window()
        parent: Any = self
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parentWidget()
        if parent is not None:
            parent.setWindowTitle(self.title)  # five tabs have to fit beside each other
        for bar in window.findChildren(QTabBar):
            bar.setElideMode(Qt.TextElideMode.ElideNone)
            bar.setUsesScrollButtons(True)

    def _theme(self, _event: Any = None) -> None:
        background, foreground = theme_colours(self.viewer)
        plots: list[Any] = [*self.findChildren(Plot), *self.findChildren(Picture)]
        for plot in plots:
            plot.colours(background, foreground)
        for section in self.findChildren(Section):
            section.colours(foreground)


class _Cut:
    """Disconnects a dock's links when Qt destroys it; holds no reference to the dock itself."""

    def __init__(self, links: list[tuple[Any, Any]]) -> None:
        self._links = links

    def __call__(self, *_: Any) -> None:
        for signal, slot in self._links:
            try:
                signal.disconnect(slot)
            except (ValueError, TypeError, RuntimeError, KeyError, AttributeError):  # gone already
                continue
        self._links.clear()
