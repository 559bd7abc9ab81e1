"""Values along depth: the score of each slice, the phase at one column."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtWidgets import QWidget

from .plot import HUES, Plot


class SliceScores(Plot):
    """PSNR or SSIM of each slice."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("depth (Å)", "SSIM", 120, parent)
        self.ssim = self.plot(
            pen=pg.mkPen(HUES[0], width=1.6),
            symbol="o",
            symbolSize=5,
            symbolBrush=HUES[0],
            symbolPen=None,
        )
        self.setToolTip(
            "SSIM of each slice, each normalised on its own; the table has PSNR and SSIM of the "
            "whole"
        )
        self.setYRange(0, 1)

    def show_scores(self, depth: NDArray[Any], ssim: NDArray[Any]) -> None:
        """Draw."""
        good = np.isfinite(ssim)
        self.ssim.setData(np.asarray(depth)[good], np.asarray(ssim)[good])


class Profile(Plot):
    """Phase along depth at a column, reference and run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("depth below the entrance (Å)", "phase (rad)", 140, parent)
        self.lines: list[Any] = []
        self.setToolTip(
            "Mean phase near the column, slice by slice. Click a column in the picture, with "
            "'Pick a column' on."
        )

    def show_profiles(
        self, profiles: Sequence[tuple[str, NDArray[Any], NDArray[Any]]], unit: str = "rad"
    ) -> None:
        """Draw (name, depth, value) of each."""
        for line in self.lines:
            self.removeItem(line)
        self.lines = [
            self.plot(
                depth,
                value,
                pen=pg.mkPen(colour, width=1.6),
                symbol="o",
                symbolSize=5,
                symbolBrush=colour,
                symbolPen=None,
            )
            for (_name, depth, value), colour in zip(profiles, HUES, strict=False)
        ]
        self.getPlotItem().setLabel(
            "left", "phase (rad)" if unit == "rad" else f"potential ({unit})"
        )

    @staticmethod
    def key(names: Sequence[str]) -> str:
        """Which colour is which, as rich text; it stands beside the axes, where no curve runs."""
        return " &nbsp; ".join(
            f"<span style='color:{colour}'>●</span> {escape(name)}"
            for name, colour in zip(names, HUES, strict=False)
        )
