"""Explorer: scan and diffraction pattern beside each other, a position, a detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import QPointF
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from .basic import combo, row, words
from .boxes import ScientificBox
from .picture import Picture

DETECTORS = ("bright field", "annular dark field", "own")


class Explorer(QWidget):
    """Two linked pictures.

    Parameters
    ----------
    picked : callable
        (row, column) of a scan position.
    detector : callable
        (inner, outer) radius in the pattern's unit, after the user changed the detector.
    """

    def __init__(
        self,
        picked: Callable[[int, int], None],
        detector: Callable[[float, float], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._picked, self._detector = picked, detector
        self._pixel, self._unit, self._shape = 1.0, "px", (1, 1)
        self._semi: float | None = None
        self._quiet = False
        self.scan = Picture("scan", "position", 172, "gray")
        self.pattern = Picture("pattern", "px", 172)
        self.target = pg.TargetItem(
            (0, 0), size=12, symbol="crosshair", pen=pg.mkPen("#e0a030", width=2), movable=True
        )
        self.scan.item.addItem(self.target)
        self.target.sigPositionChanged.connect(self._moved)
        self.scan.scene().sigMouseClicked.connect(self._scan_clicked)
        self.rings = [
            pg.CircleROI(
                (-1, -1), radius=1, pen=pg.mkPen(c, width=2), movable=False, resizable=True
            )
            for c in ("#4c9be8", "#e8894c")
        ]
        for ring in self.rings:
            ring.removeHandle(0)
            ring.addScaleHandle([1.0, 0.5], [0.5, 0.5], lockAspect=True)
            self.pattern.item.addItem(ring)
            ring.sigRegionChanged.connect(self._ring_moved)
        self.pattern.setToolTip(
            "Diffraction pattern (square root). Drag the squares on the rings: the virtual image "
            "follows."
        )
        self.scan.setToolTip(
            "Virtual image, position by position. Drag the cross or click to see the pattern "
            "recorded there."
        )
        self.choice = combo(DETECTORS, "Which part of the detector makes the virtual image")
        self.choice.setCurrentText("annular dark field")
        self.choice.activated.connect(lambda i: self._preset(DETECTORS[i]))
        self.show_choice = combo(
            ["pattern here", "average (PACBED)"], "What the right picture shows"
        )
        self.inner, self.outer = ScientificBox(), ScientificBox()
        for box, name in ((self.inner, "Inner"), (self.outer, "Outer")):
            box.setRange(0, 1e4)
            box.setKeyboardTracking(False)
            box.setToolTip(f"{name} radius of the detector")
            box.valueChanged.connect(self._box_changed)
        self.where = words(small=True)
        pictures = QHBoxLayout()
        pictures.setContentsMargins(0, 0, 0, 0)
        pictures.setSpacing(2)
        pictures.addWidget(self.scan, 1)
        pictures.addWidget(self.pattern, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(row(self.choice, self.show_choice))
        layout.addLayout(pictures)
        layout.addWidget(row(self.inner, self.outer))
        layout.addWidget(self.where)

    # ---- what is shown ----------------------------------------------------------------------
    def set_detector(
        self, shape: tuple[int, int], pixel_mrad: float | None, semi_angle: float | None
    ) -> None:
        """Size and calibration of the detector; begins with the bright field."""
        self._shape = shape
        self._pixel, self._unit = (pixel_mrad, "mrad") if pixel_mrad else (1.0, "px")
        self._semi = semi_angle if pixel_mrad else None
        for box in (self.inner, self.outer):
            box.setSuffix(f" {self._unit}")
        self._preset(self.choice.currentText(), tell=False)

    def show_pattern(self, pattern: NDArray[Any], title: str) -> None:
        """A pattern, its brightness by the square root."""
        self.pattern.show_image(
            np.sqrt(np.clip(pattern, 0, None)), (self._pixel, self._pixel), unit=self._unit
        )
        self.pattern.item.titleLabel.setText(title)

    def show_scan(self, image: NDArray[Any], title: str) -> None:
        """A virtual image."""
        self.scan.show_image(image, centre=(0, 0), unit="position")
        self.scan.item.titleLabel.setText(title)

    def show_position(self, y: int, x: int, text: str) -> None:
        """Where the pattern is from."""
        self._quiet = True
        self.target.setPos(x, y)
        self._quiet = False
        self.where.setText(text)

    @property
    def radii(self) -> tuple[float, float]:
        """Inner and outer, in the unit of the pattern."""
        return self.inner.value(), self.outer.value()

    @property
    def unit(self) -> str:
        """mrad, or px where the detector is not calibrated."""
        return self._unit

    # ---- what the user does -----------------------------------------------------------------
    def _preset(self, name: str, tell: bool = True) -> None:
        edge = min(self._shape) / 2 * self._pixel
        semi = self._semi or edge / 3
        if name == "bright field":
            self._set(0.0, semi, tell)
        elif name == "annular dark field":
            self._set(1.2 * semi, edge, tell)
        elif tell:
            self._detector(*self.radii)

    def _set(self, inner: float, outer: float, tell: bool = True) -> None:
        self._quiet = True
        self.inner.setValue(inner)
        self.outer.setValue(outer)
        self._draw_rings()
        self._quiet = False
        if tell:
            self._detector(inner, outer)

    def _draw_rings(self) -> None:
        for ring, radius in zip(self.rings, self.radii, strict=True):
            ring.blockSignals(True)
            size = max(2 * radius, 1e-3)
            ring.setSize((size, size), update=False)
            ring.setPos(QPointF(-size / 2, -size / 2), update=False)
            ring.stateChanged(finish=False)
            ring.blockSignals(False)
            ring.setVisible(radius > 0)

    def _ring_moved(self, *_: Any) -> None:
        if self._quiet:
            return
        inner, outer = (float(r.size()[0]) / 2 for r in self.rings)
        if not self.rings[0].isVisible():
            inner = 0.0
        self.choice.setCurrentIndex(2)
        self._set(min(inner, outer), max(inner, outer))

    def _box_changed(self, _value: float) -> None:
        if self._quiet:
            return
        self.choice.setCurrentIndex(2)
        self._draw_rings()
        self._detector(*self.radii)

    def _moved(self, *_: Any) -> None:
        if not self._quiet:
            place = self.target.pos()
            self._picked(round(place.y()), round(place.x()))

    def _scan_clicked(self, event: Any) -> None:
        place = self.scan.item.vb.mapSceneToView(event.scenePos())
        self._picked(round(place.y()), round(place.x()))
