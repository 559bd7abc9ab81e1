"""The curves of a run, step by step: misfit, how far the data move it, noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from .plot import HUES, Plot

if TYPE_CHECKING:
    from ...reconstruction.change import Change


class Curves(QWidget):
    """Misfit, guidance norm and noise level of a run, step by step, with marks at changes."""

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
        self.misfit.setToolTip(
            "Misfit relative to shot noise: 1 when the model explains the data. It says nothing "
            "about depth."
        )
        self.norm.setToolTip("How far the data moved the prediction in each step, rms in rad")
        self.level.setToolTip(
            "Noise level of the sampler: λ = log(α²/σ²), from noise (low) to clean (high)"
        )
        self.lines = [
            p.plot(pen=pg.mkPen(c, width=1.6)) for p, c in zip(self.plots, HUES, strict=False)
        ]
        self.misfit.addItem(
            pg.InfiniteLine(0, 0, pen=pg.mkPen("#888888", style=Qt.PenStyle.DashLine))
        )
        self._lines: list[tuple[pg.InfiniteLine, ...]] = []
        self._known: tuple[int, int, int] | None = None

    @property
    def plots(self) -> tuple[Plot, Plot, Plot]:
        """From top to bottom."""
        return self.misfit, self.norm, self.level

    def show_run(
        self, number: int, records: Sequence[dict[str, Any]], changes: Sequence[Change]
    ) -> None:
        """Draw a run; draws nothing anew if nothing has come."""
        known = (number, len(records), len(changes))
        if known == self._known:
            return
        new_marks = self._known is None or known[0] != self._known[0] or known[2] != self._known[2]
        self._known = known
        # the ordinary solution comes before the first step: its frames stand at steps −n…0
        before = sum(1 for r in records if r["step"] == 0)
        steps = np.array(
            [r["step"] if r["step"] else i - before + 1 for i, r in enumerate(records)], dtype=float
        )
        loss = np.array([r["loss"] for r in records], dtype=float)
        norm = np.array([r.get("guidance_norm", np.nan) for r in records], dtype=float)
        level = np.array(
            [np.nan if r["log_snr"] is None else r["log_snr"] for r in records], dtype=float
        )
        loss = np.where(loss > 0, loss, np.nan)
        for line, values in zip(self.lines, (loss, norm, level), strict=True):
            good = np.isfinite(values)
            line.setData(steps[good], values[good])
        has_level = bool(np.isfinite(level).any())
        self.norm.setVisible(has_level)
        self.level.setVisible(has_level)
        if new_marks:
            self._mark(changes)

    def _mark(self, changes: Sequence[Change]) -> None:
        """Lines at the changes. Lines are used again, never thrown away: they refer to each other,
        and Python may clear such garbage in a worker's thread, where Qt must not be touched."""
        for n, change in enumerate(changes):
            if n == len(self._lines):
                self._lines.append(tuple(self._new_line(plot, n) for plot in self.plots))
            own, step = change.by == "solver", change.step
            text = (
                f"back to {change.back}"
                if change.back is not None
                else ", ".join(f"{k} {_short(v)}" for k, v in change.settings.items())
            )
            pen = pg.mkPen("#d9534f" if own else "#e0a030", width=1.2, style=Qt.PenStyle.DashLine)
            for line in self._lines[n]:
                line.setPos(step)
                line.setPen(pen)
                line.setToolTip(f"step {step}: {text}")
                line.setVisible(True)
            self._lines[n][0].label.setFormat(text[:18])
        for lines in self._lines[len(changes) :]:
            for line in lines:
                line.setVisible(False)

    def _new_line(self, plot: Plot, number: int) -> pg.InfiniteLine:
        line = pg.InfiniteLine(
            0,
            90,
            label="" if plot is self.misfit else None,
            labelOpts={
                "position": 0.96 - 0.17 * (number % 4),
                "color": "#e0a030",
                "anchors": [(0, 0), (0, 0)],
            },
        )
        plot.addItem(line)
        return line

    @property
    def marks(self) -> list[pg.InfiniteLine]:
        """The lines that are shown: of each change one in each plot."""
        return [line for lines in self._lines for line in lines if line.isVisible()]

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
