"""Probe of a measurement: its aberrations, and how it looks; a part of the Data dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...measurement.preparation import Preparation
from ..widgets.basic import Section, row, words
from ..widgets.forms import Form
from ..widgets.picture import Picture

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ..workspace import Workspace

ABERRATIONS = ("C12", "phi12", "C21", "phi21", "C23", "phi23")


class ProbeSection(Section):
    """Aberrations, the probe on the specimen and the phase in the aperture.

    Parameters
    ----------
    workspace : Workspace
    change : callable
        Changes a field of the preparation; raises ValueError where it does not fit.
    """

    def __init__(self, workspace: Workspace, change: Callable[[str, Any], None]) -> None:
        super().__init__("Probe")
        self.workspace, self.session = workspace, workspace.session
        self.focus_form = Form(Preparation, ("overfocus", "C30"), change)
        self.aberration_form = Form(Preparation, ABERRATIONS, change)
        self.real, self.reciprocal = (
            Picture("on the specimen", "Å", 160),
            Picture("aperture phase", "mrad", 160, "twilight"),
        )
        self.extent = words("", small=True)
        more = Section("More aberrations", folded=True).add(self.aberration_form)
        self.add(self.focus_form, row(self.real, self.reciprocal), self.extent, more)

    def show_probe(self) -> None:
        """Model the probe in the background and show it."""
        data = self.session.data
        if data is None:
            return

        def work(_report: Report) -> Any:
            import torch

            from ...measurement.checks import probe_size
            from ...physics.optics import probe_from_parameters

            wave = data.probe
            if wave is None:
                wave = probe_from_parameters(
                    data.illumination(),
                    data.detector_shape,
                    data.real_pixel,
                    dtype=torch.complex128,
                ).numpy()
            first = np.asarray(wave).reshape(-1, *data.detector_shape)[0]
            spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(first)))
            size = probe_size(data) if data.probe is None else None
            return np.abs(first) ** 2, spectrum, data.real_pixel, size

        def done(result: Any) -> None:
            intensity, spectrum, pixel, size = result
            if self.session.data is not data:
                return
            self.real.show_image(intensity / intensity.max(), pixel, unit="Å")
            mrad = data.calibration.pixel_mrad or 1.0
            bright = np.abs(spectrum) > 0.1 * np.abs(spectrum).max()
            self.reciprocal.show_image(
                np.where(bright, np.angle(spectrum), 0),
                (mrad, mrad),
                levels=(-np.pi, np.pi),
                unit="mrad",
            )
            self.extent.setText(
                "as the file has it"
                if size is None
                else f"90 % of the intensity within {size:.1f} Å"
            )

        def failed(error: BaseException) -> None:
            self.extent.setText(f"no preview: {error}")

        self.workspace.jobs.run("probe", "probe", work, done, failed, shown_in=self)
