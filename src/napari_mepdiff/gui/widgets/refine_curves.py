"""The curves of a refinement, pass by pass: misfit, and how each part of the microscope went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from .plot import HUES, Plot

PARTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("C10 Å", ("C10",), "Defocus of the refined probe"),
    ("source Å", ("source_size",), "Source size, rms for each axis"),
    ("moved Å", ("moved",), "How far the positions are from where the run began, rms"),
    ("tilt mrad", ("tilt y", "tilt x"), "Tilt of the beam: along y (blue) and x (orange)"),
    ("dark e/px", ("background",), "Background: electrons per pixel and pattern"),
)


class RefineCurves(QWidget):
    """Misfit and held-out misfit, and below each part of the microscope, by passes."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.misfit = Plot("", "misfit ÷ noise", 110)
        self.misfit.setLogMode(y=True)
        self.misfit.getPlotItem().getAxis("bottom").setStyle(showValues=False)
        self.misfit.setToolTip(
            "Misfit relative to shot noise: 1 when the model explains the data. Blue: of the "
            "positions that are fitted; orange: of those held out of the fit. Where orange rises "
            "while blue falls, noise is fitted."
        )
        self.misfit.addItem(
            pg.InfiniteLine(0, 0, pen=pg.mkPen("#888888", style=Qt.PenStyle.DashLine))
        )
        self.fitted, self.held_out = (_line(self.misfit, colour) for colour in HUES[:2])
        self.parts: dict[str, Any] = {}
        self.plots = [self.misfit]
        for title, names, about in PARTS:
            last = title == PARTS[-1][0]
            plot = Plot("pass" if last else "", title, 98 if last else 66)
            plot.setToolTip(about)
            plot.getPlotItem().getAxis("bottom").setStyle(showValues=last)
            plot.setXLink(self.misfit)
            self.plots.append(plot)
            for name, colour in zip(names, HUES, strict=False):
                self.parts[name] = _line(plot, colour)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        for plot in self.plots:
            layout.addWidget(plot)
        self._known: tuple[int, int] | None = None

    def show_run(self, number: int, records: Sequence[dict[str, Any]]) -> None:
        """Draw a run from the numbers of its frames; draws nothing anew if nothing has come."""
        known = (number, len(records))
        if known == self._known:
            return
        self._known = known
        self._draw(self.fitted, records, "loss", positive=True)
        self._draw(self.held_out, records, "held_out", positive=True)
        for name, line in self.parts.items():
            self._draw(line, records, name)

    @staticmethod
    def _draw(
        line: Any, records: Sequence[dict[str, Any]], name: str, positive: bool = False
    ) -> None:
        steps = np.array([r["step"] for r in records], dtype=float)
        values = np.array([r.get(name, np.nan) for r in records], dtype=float)
        good = np.isfinite(values) & ((values > 0) | (not positive))
        line.setData(steps[good], values[good])

    def clear(self) -> None:
        """Empty."""
        self._known = None
        for line in (self.fitted, self.held_out, *self.parts.values()):
            line.setData([], [])


def _line(plot: Plot, colour: str) -> Any:
    return plot.plot(
        pen=pg.mkPen(colour, width=1.6),
        symbol="o",
        symbolSize=4,
        symbolBrush=colour,
        symbolPen=None,
    )
