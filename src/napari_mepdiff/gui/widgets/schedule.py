"""The guidance over the noise level, g(λ): drawn, and drawn by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from ...reconstruction.diffusion.guidance import guidance
from .plot import HUES, Plot


class CurveEditor(Plot):
    """Weight · g(λ), where the run is on it, and for the free schedule its points to drag.

    Double-click adds a point, right-click takes one away.
    """

    def __init__(
        self,
        edited: Callable[[tuple[tuple[float, float], ...]], None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__("λ, from noise (left) to clean (right)", "weight · g(λ)", 150, parent)
        self._edited = edited
        self.line = self.plot(pen=pg.mkPen(HUES[0], width=2))
        self.here = pg.ScatterPlotItem(size=11, brush=pg.mkBrush("#e0a030"), pen=pg.mkPen("w"))
        self.here.setZValue(10)
        self.addItem(self.here)
        self.points: list[pg.TargetItem] = []
        self._weight, self._span = 1.0, (-13.4, 4.6)
        self._schedule: Any = "shifted-sigmoid"
        self._curve: tuple[tuple[float, float], ...] = ()
        self.setToolTip(
            "How strongly the data pull at each noise level. With the schedule 'curve': drag "
            "points, double-click for a new one, right-click removes one."
        )
        self.scene().sigMouseClicked.connect(self._clicked)

    def show_schedule(
        self,
        schedule: Any,
        weight: float,
        curve: Sequence[tuple[float, float]],
        sigma_max: float,
        sigma_min: float,
    ) -> None:
        """Draw a schedule."""
        self._schedule, self._weight, self._curve = (
            schedule,
            weight,
            tuple((float(a), float(b)) for a, b in curve),
        )
        self._span = (-2 * math.log(sigma_max), -2 * math.log(sigma_min))
        x = np.linspace(*self._span, 200)
        usable = schedule != "curve" or bool(self._curve)
        y = (
            np.array([weight * guidance(schedule, v, self._curve) for v in x])
            if usable
            else np.zeros_like(x)
        )
        self.line.setData(x, y)
        self.setXRange(*self._span, padding=0.02)
        self.setYRange(0, max(1.15 * float(y.max()), 1e-3), padding=0)
        self._draw_points()

    def show_position(self, log_snr: float | None, weight: float) -> None:
        """Where the run is."""
        if log_snr is None or (self._schedule == "curve" and not self._curve):
            self.here.setData([], [])
        else:
            self.here.setData([log_snr], [weight * guidance(self._schedule, log_snr, self._curve)])

    def _draw_points(self) -> None:
        wanted = self._curve if self._schedule == "curve" else ()
        if len(wanted) != len(self.points):
            for point in self.points:
                self.removeItem(point)
            self.points = []
            for _ in wanted:
                point = pg.TargetItem(
                    (0, 0),
                    size=12,
                    symbol="o",
                    pen=pg.mkPen("w"),
                    brush=pg.mkBrush(HUES[1]),
                    movable=True,
                )
                point.sigPositionChangeFinished.connect(self._dragged)
                self.addItem(point)
                self.points.append(point)
        for point, (level, value) in zip(self.points, wanted, strict=True):
            point.blockSignals(True)
            point.setPos(level, value * self._weight)
            point.blockSignals(False)

    def _scale(self) -> float:
        return self._weight if self._weight > 0 else 1.0

    def _dragged(self, *_: Any) -> None:
        points = sorted(
            (float(p.pos().x()), max(0.0, float(p.pos().y())) / self._scale()) for p in self.points
        )
        self._send(points)

    def _send(self, points: Sequence[tuple[float, float]]) -> None:
        kept: list[tuple[float, float]] = []
        for level, value in sorted(points):
            level = min(max(level, self._span[0]), self._span[1])
            if not kept or level > kept[-1][0] + 1e-3:
                kept.append((round(level, 3), round(value, 4)))
        self._edited(tuple(kept))

    def _clicked(self, event: Any) -> None:
        if self._schedule != "curve":
            return
        place = self.getPlotItem().vb.mapSceneToView(event.scenePos())
        points = [(p, v) for p, v in self._curve]
        if event.double() and event.button() == Qt.MouseButton.LeftButton:
            self._send([*points, (float(place.x()), max(0.0, float(place.y())) / self._scale())])
            event.accept()
        elif event.button() == Qt.MouseButton.RightButton and len(points) > 1:
            near = min(range(len(points)), key=lambda i: abs(points[i][0] - place.x()))
            self._send([p for i, p in enumerate(points) if i != near])
            event.accept()


def default_curve(
    schedule: Any, sigma_max: float, sigma_min: float
) -> tuple[tuple[float, float], ...]:
    """Six points on a schedule, to begin drawing from."""
    levels = np.linspace(-2 * math.log(sigma_max), -2 * math.log(sigma_min), 6)
    return tuple((round(float(v), 3), round(guidance(schedule, float(v)), 4)) for v in levels)
