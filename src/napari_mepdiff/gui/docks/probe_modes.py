"""Modes of the refined probe, and its aberration phase: a part of the Microscope dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from qtpy.QtWidgets import QSpinBox

from ..widgets.basic import Section, row, words
from ..widgets.boxes import NoWheel
from ..widgets.picture import Picture
from ..widgets.plot import HUES, Plot

if TYPE_CHECKING:
    from ...microscope.phase import PhaseCurve
    from ...session.microscope_look import Look


class ProbeModesSection(Section):
    """One mode on the specimen and in the aperture, and χ against angle.

    Parameters
    ----------
    chosen : callable
        Called when the user wants another mode.
    """

    def __init__(self, chosen: Callable[[], Any]) -> None:
        super().__init__("Probe")
        self.mode = QSpinBox()
        self.mode.setPrefix("mode ")
        self.mode.setRange(1, 1)
        self.mode.setToolTip(
            "Modes of a partially coherent beam do not interfere: their intensities add up. The "
            "first is the strongest."
        )
        self._filter = NoWheel(self)
        self.mode.installEventFilter(self._filter)
        self.mode.valueChanged.connect(lambda _: None if self._silent else chosen())
        self._silent = False
        self.share = words("", small=True)
        self.real = Picture("on the specimen", "Å", 165)
        self.reciprocal = Picture("in the aperture", "mrad", 165, "")
        self.real.setToolTip("Intensity of this mode on the entrance surface of the specimen")
        self.reciprocal.setToolTip(
            "Amplitude (brightness) and phase (hue: red is 0, cyan ±π) of this mode in the aperture"
        )
        self.chi = Phases()
        self.key = words("", small=True)
        self.add(row(self.mode, self.share), row(self.real, self.reciprocal), self.key, self.chi)

    def show_look(self, look: Look) -> None:
        """What was found, as it is now."""
        mode = look.mode
        self.mode.setEnabled(mode is not None and mode.count > 1)
        for picture in (self.real, self.reciprocal):
            picture.image.setVisible(mode is not None)
        if mode is None:
            self.share.setText("no probe is refined yet")
        else:
            self._silent = True
            self.mode.setRange(1, mode.count)
            self._silent = False
            self.share.setText(f"of {mode.count}, {100 * mode.share:.3g} % of the electrons")
            self.real.show_image(mode.real, mode.pixel, levels=(0.0, 1.0))
            self.reciprocal.show_image(coloured(mode.reciprocal), mode.angle)
        self.key.setText(self.chi.show_phases(look.told, look.refined))


class Phases(Plot):
    """Aberration phase against angle, of what was told and what was refined."""

    def __init__(self) -> None:
        super().__init__("angle (mrad)", "χ (rad)", 130)
        self.setToolTip(
            "Aberration phase of the lens: its mean over all directions, and shaded how far it "
            "differs between them, which is astigmatism and coma. A quarter of π matters."
        )
        self.lines, self.bands = [], []
        for colour in HUES[:2]:
            low, high = pg.PlotCurveItem(), pg.PlotCurveItem()
            shade = pg.mkColor(colour)
            shade.setAlpha(60)
            band = pg.FillBetweenItem(low, high, brush=shade)
            self.addItem(band)
            self.bands.append((low, high, band))
            self.lines.append(self.plot(pen=pg.mkPen(colour, width=1.6)))

    def show_phases(self, told: PhaseCurve | None, refined: PhaseCurve | None) -> str:
        """Draw; returns which colour is which, as rich text."""
        names = []
        for n, (name, curve) in enumerate((("told", told), ("refined", refined))):
            low, high, band = self.bands[n]
            band.setVisible(curve is not None)
            if curve is None:
                self.lines[n].setData([], [])
                continue
            self.lines[n].setData(curve.angle, curve.mean)
            low.setData(curve.angle, curve.low)
            high.setData(curve.angle, curve.high)
            names.append(f"<span style='color:{HUES[n]}'>●</span> {name}")
        said = " &nbsp; ".join(names)
        return f"Aberration phase χ: {said}" if names else "nothing is told of the lens yet"


def coloured(wave: NDArray[np.complex128]) -> NDArray[np.uint8]:
    """A complex image as colours: brightness is the modulus, hue the phase."""
    from skimage.color import hsv2rgb

    hue = (np.angle(wave) / (2 * np.pi)) % 1.0
    parts = (hue, np.full(wave.shape, 0.7), np.clip(np.abs(wave), 0, 1))
    return (255 * hsv2rgb(np.stack(parts, axis=-1))).round().astype(np.uint8)
