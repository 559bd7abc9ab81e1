"""Axes in the docks (pyqtgraph): what curves are drawn on, in the colours of napari's theme."""

from __future__ import annotations

import pyqtgraph as pg
from qtpy.QtWidgets import QWidget

HUES = ("#4c9be8", "#e8894c", "#5fbf77", "#c678dd", "#d9534f")


def adopt(owner: QWidget, item: pg.PlotItem) -> None:
    """Give a widget what pyqtgraph leaves without an owner, so that Qt deletes it, in its thread.

    Menus stand in cycles of references: Python's garbage collection, which runs in any thread,
    would destroy them otherwise.
    """
    item.ctrlMenu.setParent(owner, item.ctrlMenu.windowFlags())
    item.stateGroup.setParent(owner)


class Plot(pg.PlotWidget):
    """Axes in the colours of napari's theme."""

    def __init__(self, x: str, y: str, height: int = 120, parent: QWidget | None = None) -> None:
        super().__init__(parent, enableMenu=False)
        self.setFixedHeight(height)
        self.hideButtons()
        item = self.getPlotItem()
        adopt(self, item)
        item.setLabel("bottom", x)
        item.setLabel("left", y)
        item.getAxis("left").setWidth(58)
        item.getAxis("left").enableAutoSIPrefix(False)
        item.getAxis("bottom").enableAutoSIPrefix(False)
        item.showGrid(x=True, y=True, alpha=0.15)
        self.setMouseEnabled(x=False, y=False)
        self.colours("#262930", "#d0d0d0")

    def colours(self, background: str, foreground: str) -> None:
        """Set the theme's colours."""
        self.setBackground(background)
        for name in ("left", "bottom"):
            axis = self.getPlotItem().getAxis(name)
            axis.setPen(foreground)
            axis.setTextPen(foreground)
            axis.label.setDefaultTextColor(pg.mkColor(foreground))
            small = axis.label.font()
            small.setPointSizeF(8)
            axis.label.setFont(small)
            axis.setStyle(tickFont=small)
