"""An image with axes: a diffraction pattern, the PACBED, a probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from napari.utils.colormaps import ensure_colormap
from numpy.typing import NDArray
from qtpy.QtWidgets import QWidget

from .plot import adopt


def _colours(name: str) -> pg.ColorMap:
    """A colour map of napari's: those that pyqtgraph takes from matplotlib load its windows too."""
    return pg.ColorMap(None, (255 * ensure_colormap(name).colors).round().astype(np.uint8))


class Picture(pg.GraphicsLayoutWidget):
    """An image with axes: patterns, PACBED, probe."""

    def __init__(
        self,
        title: str,
        unit: str,
        height: int = 170,
        colormap: str = "inferno",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setFixedHeight(height)
        self.item = self.addPlot(enableMenu=False)
        adopt(self, self.item)
        self.item.hideButtons()
        self.item.setAspectLocked(True)
        self.item.invertY(True)
        self.item.setTitle(title, size="8pt")
        self.item.setLabel("bottom", unit)
        for name in ("left", "bottom"):
            self.item.getAxis(name).enableAutoSIPrefix(False)
        self.item.hideAxis("left")
        self.item.vb.setDefaultPadding(0.0)
        self.image = pg.ImageItem(axisOrder="row-major")
        if colormap:
            self.image.setColorMap(_colours(colormap))
        self.item.addItem(self.image)
        self.ci.layout.setContentsMargins(2, 0, 2, 2)

    def show_image(
        self,
        array: NDArray[Any],
        pixel: tuple[float, float] = (1.0, 1.0),
        centre: tuple[float, float] | None = None,
        unit: str | None = None,
        levels: tuple[float, float] | None = None,
    ) -> None:
        """Draw; (0, 0) of the axes is at pixel `centre`, the middle by default."""
        array = np.asarray(array)
        ny, nx = array.shape[:2]
        cy, cx = centre if centre is not None else (ny // 2, nx // 2)
        self.image.setImage(array, autoLevels=levels is None, levels=levels)
        self.image.setRect(
            (-0.5 - cx) * pixel[1], (-0.5 - cy) * pixel[0], nx * pixel[1], ny * pixel[0]
        )
        if unit is not None:
            self.item.setLabel("bottom", unit)

    def colours(self, background: str, foreground: str) -> None:
        """Set the theme's colours."""
        self.setBackground(background)
        for name in ("left", "bottom"):
            axis = self.item.getAxis(name)
            axis.setPen(foreground)
            axis.setTextPen(foreground)
            small = axis.label.font()
            small.setPointSizeF(8)
            axis.label.setFont(small)
            axis.label.setDefaultTextColor(pg.mkColor(foreground))
            axis.setStyle(tickFont=small)
        self.item.titleLabel.setText(self.item.titleLabel.text, color=foreground)
