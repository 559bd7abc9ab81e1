"""Looking at the data: the pattern of a position, the image of a detector; in the Data dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QTimer

from ..widgets.basic import Section
from ..widgets.explorer import Explorer

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ..workspace import Workspace


class LookSection(Section):
    """Patterns and virtual images.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Look")
        self.workspace, self.session = workspace, workspace.session
        self.position = (0, 0)  # row, column of the scan
        self.explorer = Explorer(self.pick, self.virtual)
        self.explorer.show_choice.activated.connect(lambda _i: self.show_pattern())
        self.add(self.explorer)

    def measured(self) -> None:
        """Measurement that is new, or prepared otherwise."""
        data = self.session.data
        c = data.calibration
        self.explorer.set_detector(data.detector_shape, c.pixel_mrad, c.semi_angle)
        self.pick(*self.position)
        self.virtual(*self.explorer.radii)

    def looked(self) -> None:
        """The average pattern is known."""
        if self.explorer.show_choice.currentIndex() == 1:
            self.show_pattern()

    def pick(self, y: int, x: int) -> None:
        """Show the pattern of a scan position (row, column)."""
        data = self.session.data
        if data is None:
            return
        ny, nx = data.scan_shape
        y, x = int(np.clip(y, 0, ny - 1)), int(np.clip(x, 0, nx - 1))
        self.position = (y, x)
        self.show_pattern()

    def show_pattern(self) -> None:
        """The pattern of the present position, or the average of all."""
        data = self.session.data
        if data is None:
            return
        y, x = self.position
        place = ""
        try:
            py, px = data.scan_positions().reshape(*data.scan_shape, 2)[y, x]
            place = f", at ({py:.2f}, {px:.2f}) Å"
        except ValueError:
            pass

        self.show_mark()

        def work(_report: Report) -> Any:
            return np.asarray(data.pattern(y, x), dtype=np.float64)

        def done(pattern: Any) -> None:
            self.explorer.show_position(
                y,
                x,
                f"position ({y}, {x}){place}: {pattern.sum():.4g} electrons, at most "
                f"{pattern.max():.3g} in a pixel",
            )
            if self.explorer.show_choice.currentIndex() == 1 and self.session.summary is not None:
                self.explorer.show_pattern(self.session.summary.pacbed, "average (PACBED)")
            else:
                self.explorer.show_pattern(pattern, "pattern here")

        self.workspace.jobs.run("pattern", "reading a pattern", work, done, shown_in=self)

    def show_mark(self) -> None:
        """The cross in the picture, at the position that is looked at."""
        data = self.session.data
        if data is not None:
            try:
                place = data.scan_positions().reshape(*data.scan_shape, 2)[self.position]
            except ValueError:
                place = np.array(self.position, dtype=float)
            self.workspace.measurement_layers.mark_position(float(place[0]), float(place[1]))

    def _marked(self) -> None:
        if isalive(self):
            self.show_mark()

    def virtual(self, inner: float, outer: float) -> None:
        """Virtual image of an annulus, here and as a layer."""
        data = self.session.data
        if data is None:
            return
        calibrated = data.calibration.pixel_mrad is not None
        name = self.explorer.choice.currentText()
        label = (
            name if name != "own" else f"detector {inner:.3g} to {outer:.3g} {self.explorer.unit}"
        )

        def work(report: Report) -> Any:
            from dataclasses import replace

            from ...measurement.dataset import Calibration
            from ...measurement.detectors import virtual_image

            source = data
            if not calibrated:  # radii in pixels: a calibration in which a pixel is 1 mrad
                unit = Calibration(energy=data.calibration.energy or 300.0).with_pixel_mrad(1.0)
                source = replace(data, calibration=unit, optics=None)
            return virtual_image(source, inner, outer, progress=report)

        def done(image: Any) -> None:
            if self.session.data is data:
                self.explorer.show_scan(image, label)
                layer = self.workspace.measurement_layers.show_virtual(data, image)
                self.workspace.measurement_layers.pick_on(layer, data, self.pick)
                QTimer.singleShot(0, self._marked)  # a layer in a turn

        self.workspace.jobs.run("virtual", "virtual image", work, done, shown_in=self)
