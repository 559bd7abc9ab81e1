"""Dock: what the docks have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qtpy.QtWidgets import QWidget

from .theme import theme_colours
from .widgets.basic import Busy, Page, Section
from .widgets.picture import Picture
from .widgets.plot import Plot
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

    def fill(self) -> Iterator[None]:
        """Make the dock, part by part; whoever iterates lets the window draw in between."""
        yield from self.build()
        self.listen(self.session.message, self.notice.say)
        self.listen(self.workspace.jobs.changed, self.busy.update_jobs)
        self.listen(self.viewer.events.theme, self._theme)
        self.destroyed.connect(_Cut(self._links))
        self._theme()

    def build(self) -> Iterator[None]:
        """Make the sections, with a `yield` after each; each dock has its own.

        What it listens to, and what it then shows, comes after the last `yield`: what happens
        before is not missed.
        """
        raise NotImplementedError

    def listen(self, signal: Any, slot: Any) -> None:
        """Connect for as long as the dock lives."""
        signal.connect(slot)
        self._links.append((signal, slot))

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
