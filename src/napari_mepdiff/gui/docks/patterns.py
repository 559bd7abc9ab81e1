"""Measured against modelled diffraction patterns: a part of the Compare dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QSpinBox

from ..widgets.basic import Section, button, row, words
from ..widgets.picture import Picture

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ..workspace import Workspace


class PatternsSection(Section):
    """The pattern at one scan position, measured, and as the volume would give it.

    Parameters
    ----------
    workspace : Workspace
    layer : callable
        The layer whose volume is judged, or None.
    """

    def __init__(self, workspace: Workspace, layer: Callable[[], Any]) -> None:
        super().__init__("Measured against modelled pattern")
        self.workspace, self.session, self._layer = workspace, workspace.session, layer
        self.rows_box, self.columns_box = QSpinBox(), QSpinBox()
        for box, name in ((self.rows_box, "row "), (self.columns_box, "column ")):
            box.setPrefix(name)
            box.setToolTip("Scan position")
        self.button = button(
            "Show patterns",
            "Measured and modelled diffraction pattern at this scan position, by the square root",
            self.show_patterns,
        )
        self.measured = Picture("measured", "mrad", 165)
        self.modelled = Picture("modelled", "mrad", 165)
        self.misfit = words("", small=True)
        self.add(
            row(self.rows_box, self.columns_box, self.button),
            row(self.measured, self.modelled),
            self.misfit,
        )

    def measurement(self) -> Any:
        """The 4D-STEM data that the judged volume belongs to: its run's, else the open ones."""
        layer = self._layer()
        run = None if layer is None else self.workspace.run_layers.run_of(layer)
        return self.session.data if run is None else run.data

    def set_range(self) -> None:
        """As many rows and columns as the scan has."""
        data = self.measurement()
        if data is not None:
            self.rows_box.setMaximum(data.scan_shape[0] - 1)
            self.columns_box.setMaximum(data.scan_shape[1] - 1)

    def show_patterns(self) -> None:
        """Patterns at the chosen position, for the volume that is judged."""
        layer, data = self._layer(), self.measurement()
        if data is None or layer is None:
            self.session.message.emit(
                "warning", "measured and modelled patterns need 4D-STEM data and a volume", ""
            )
            return
        self.set_range()
        y, x = self.rows_box.value(), self.columns_box.value()
        source = self.workspace.run_layers.snapshot(layer)
        name = layer.name

        def work(report: Report) -> Any:
            from ...evaluation.compare import patterns_at
            from ...physics.misfit import relative_deviance

            report(0.1)
            measured, model = patterns_at(source.volume(), data, y, x)
            ratio = relative_deviance(measured, np.maximum(model, 1e-9), data.mask)
            return measured, model, ratio

        def done(found: Any) -> None:
            measured, model, ratio = found
            pixel = data.calibration.pixel_mrad or 1.0
            top = max(float(np.sqrt(np.percentile(measured, 99.9))), 1e-6)
            for picture, pattern in ((self.measured, measured), (self.modelled, model)):
                root = np.sqrt(np.clip(pattern, 0, None))
                picture.show_image(root, (pixel, pixel), levels=(0, top))
            self.misfit.setText(
                f"{name} at ({y}, {x}): {measured.sum():.4g} electrons measured, "
                f"{model.sum():.4g} modelled, misfit {ratio:.3f} × shot noise at this position"
            )

        self.workspace.jobs.run("patterns", "modelling a pattern", work, done)
