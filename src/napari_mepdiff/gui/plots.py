"""Plots in the docks (pyqtgraph): themed axes, the live curves of a run, the curve g(λ) with points to drag, scores, profiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ..reconstruction.guidance import guidance

HUES = ("#4c9be8", "#e8894c", "#5fbf77", "#c678dd", "#d9534f")


class Plot(pg.PlotWidget):
    """Axes in the colours of napari's theme."""

    def __init__(self, x: str, y: str, height: int = 120, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(height)
        self.setMenuEnabled(False)
        self.hideButtons()
        item = self.getPlotItem()
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


class Curves(QWidget):
    """Misfit, guidance norm and noise level of a run, step by step, with marks where something was changed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.misfit = Plot("", "misfit ÷ noise", 104)
        self.norm = Plot("", "moved (rad)", 86)
        self.level = Plot("step", "λ (log-SNR)", 96)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        for plot in self.plots:
            layout.addWidget(plot)
        self.misfit.setLogMode(y=True)
        self.norm.setXLink(self.misfit)
        self.level.setXLink(self.misfit)
        self.misfit.setToolTip("Misfit relative to shot noise: 1 when the model explains the data. It says nothing about depth.")
        self.norm.setToolTip("How far the data moved the prediction in each step, rms in rad")
        self.level.setToolTip("Noise level of the sampler: λ = log(α²/σ²), from noise (low) to clean (high)")
        self.lines = [p.plot(pen=pg.mkPen(c, width=1.6)) for p, c in zip(self.plots, HUES, strict=False)]
        self.misfit.addItem(pg.InfiniteLine(0, 0, pen=pg.mkPen("#888888", style=Qt.PenStyle.DashLine)))
        self.marks: list[tuple[Any, Any]] = []
        self._known: tuple[int, int, int] | None = None

    @property
    def plots(self) -> tuple[Plot, Plot, Plot]:
        """From top to bottom."""
        return self.misfit, self.norm, self.level

    def show_run(self, number: int, records: Sequence[dict[str, Any]], changes: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Draw a run; draws nothing anew if nothing has come."""
        known = (number, len(records), len(changes))
        if known == self._known:
            return
        new_marks = self._known is None or known[0] != self._known[0] or known[2] != self._known[2]
        self._known = known
        # the ordinary solution comes before the first step: its frames stand at steps −n…0
        before = sum(1 for r in records if r["step"] == 0)
        steps = np.array([r["step"] if r["step"] else i - before + 1 for i, r in enumerate(records)], dtype=float)
        loss = np.array([r["loss"] for r in records], dtype=float)
        norm = np.array([r.get("guidance_norm", np.nan) for r in records], dtype=float)
        level = np.array([np.nan if r["log_snr"] is None else r["log_snr"] for r in records], dtype=float)
        loss = np.where(loss > 0, loss, np.nan)
        for line, values in zip(self.lines, (loss, norm, level), strict=True):
            good = np.isfinite(values)
            line.setData(steps[good], values[good])
        has_level = bool(np.isfinite(level).any())
        self.norm.setVisible(has_level)
        self.level.setVisible(has_level)
        if new_marks:
            self._mark(changes)

    def _mark(self, changes: Sequence[tuple[int, dict[str, Any]]]) -> None:
        for plot, item in self.marks:
            plot.removeItem(item)
        self.marks.clear()
        for n, (step, change) in enumerate(changes):
            own = change.get("by") == "solver"
            text = f"back to {change['back']}" if "back" in change else ", ".join(
                f"{k} {_short(v)}" for k, v in change.items() if k not in ("by", "reason"))
            for plot in self.plots:
                line = pg.InfiniteLine(step, 90, pen=pg.mkPen("#d9534f" if own else "#e0a030", width=1.2,
                                                              style=Qt.PenStyle.DashLine),
                                       label=text[:18] if plot is self.misfit else None,
                                       labelOpts={"position": 0.96 - 0.17 * (n % 4), "color": "#e0a030",
                                                  "anchors": [(0, 0), (0, 0)]})
                line.setToolTip(f"step {step}: {text}")
                plot.addItem(line)
                self.marks.append((plot, line))

    def clear(self) -> None:
        """Empty."""
        self._known = None
        for line in self.lines:
            line.setData([], [])
        self._mark([])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)) and len(value) > 2:
        return f"{len(value)} points"
    return str(value)


class CurveEditor(Plot):
    """Weight · g(λ), where the run is on it, and for the free schedule its points to drag.

    Double-click adds a point, right-click takes one away.
    """

    def __init__(self, edited: Callable[[tuple[tuple[float, float], ...]], None], parent: QWidget | None = None) -> None:
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
        self.setToolTip("How strongly the data pull at each noise level. With the schedule 'curve': drag points, double-click "
                        "for a new "
                        "one, right-click removes one.")
        self.scene().sigMouseClicked.connect(self._clicked)

    def show_schedule(self, schedule: Any, weight: float, curve: Sequence[tuple[float, float]], sigma_max: float,
                      sigma_min: float) -> None:
        """Draw a schedule."""
        self._schedule, self._weight, self._curve = schedule, weight, tuple((float(a), float(b)) for a, b in curve)
        self._span = (-2 * math.log(sigma_max), -2 * math.log(sigma_min))
        x = np.linspace(*self._span, 200)
        usable = schedule != "curve" or bool(self._curve)
        y = np.array([weight * guidance(schedule, v, self._curve) for v in x]) if usable else np.zeros_like(x)
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
                point = pg.TargetItem((0, 0), size=12, symbol="o", pen=pg.mkPen("w"), brush=pg.mkBrush(HUES[1]), movable=True)
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
        points = sorted((float(p.pos().x()), max(0.0, float(p.pos().y())) / self._scale()) for p in self.points)
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


def default_curve(schedule: Any, sigma_max: float, sigma_min: float) -> tuple[tuple[float, float], ...]:
    """Six points on a schedule, to begin drawing from."""
    levels = np.linspace(-2 * math.log(sigma_max), -2 * math.log(sigma_min), 6)
    return tuple((round(float(v), 3), round(guidance(schedule, float(v)), 4)) for v in levels)


class SliceScores(Plot):
    """PSNR or SSIM of each slice."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("depth (Å)", "SSIM", 120, parent)
        self.ssim = self.plot(pen=pg.mkPen(HUES[0], width=1.6), symbol="o", symbolSize=5, symbolBrush=HUES[0], symbolPen=None)
        self.setToolTip("SSIM of each slice, each normalised on its own; the table has PSNR and SSIM of the whole")
        self.setYRange(0, 1)

    def show_scores(self, depth: NDArray[Any], ssim: NDArray[Any]) -> None:
        """Draw."""
        good = np.isfinite(ssim)
        self.ssim.setData(np.asarray(depth)[good], np.asarray(ssim)[good])


class Profile(Plot):
    """Phase along depth at a column, reference and run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("depth below the entrance (Å)", "phase (rad)", 140, parent)
        self.addLegend(offset=(-4, 4), labelTextSize="8pt")
        self.lines: list[Any] = []
        self.setToolTip("Mean phase near the column, slice by slice. Click a column in the picture (with the Pick button on).")

    def show_profiles(self, profiles: Sequence[tuple[str, NDArray[Any], NDArray[Any]]], unit: str = "rad") -> None:
        """Draw (name, depth, value) of each."""
        for line in self.lines:
            self.removeItem(line)
        self.lines = [
            self.plot(depth, value, pen=pg.mkPen(colour, width=1.6), symbol="o", symbolSize=5, symbolBrush=colour, symbolPen=None,
                      name=name)
            for (name, depth, value), colour in zip(profiles, HUES, strict=False)
        ]
        self.getPlotItem().setLabel("left", "phase (rad)" if unit == "rad" else f"potential ({unit})")


class Picture(pg.GraphicsLayoutWidget):
    """An image with axes: patterns, PACBED, probe."""

    def __init__(self, title: str, unit: str, height: int = 170, colormap: str = "inferno", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(height)
        self.item = self.addPlot()
        self.item.setMenuEnabled(False)
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
            self.image.setColorMap(pg.colormap.get(colormap, source="matplotlib"))
        self.item.addItem(self.image)
        self.ci.layout.setContentsMargins(2, 0, 2, 2)

    def show_image(self, array: NDArray[Any], pixel: tuple[float, float] = (1.0, 1.0), centre: tuple[float, float] | None = None,
                   unit: str | None = None, levels: tuple[float, float] | None = None) -> None:
        """Draw; (0, 0) of the axes is at pixel `centre`, the middle by default."""
        array = np.asarray(array)
        ny, nx = array.shape[:2]
        cy, cx = centre if centre is not None else (ny // 2, nx // 2)
        self.image.setImage(array, autoLevels=levels is None, levels=levels)
        self.image.setRect((-0.5 - cx) * pixel[1], (-0.5 - cy) * pixel[0], nx * pixel[1], ny * pixel[0])
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
