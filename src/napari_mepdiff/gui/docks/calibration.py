"""Calibration of a measurement by numbers and by its bright disk: a part of the Data dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...measurement.preparation import Preparation
from ..widgets.basic import Section, button, row, words
from ..widgets.forms import Form

if TYPE_CHECKING:
    from ...session.session import Session

CALIBRATION = ("energy", "semi_angle", "pixel_mrad", "scan_step_y", "scan_step_x", "rotation")


class CalibrationSection(Section):
    """Numbers that the file lacks or has wrong, and what the bright disk says of them.

    Parameters
    ----------
    session : Session
    change : callable
        Changes a field of the preparation; raises ValueError where it does not fit.
    take : callable
        Takes fields of the preparation over; says it where they do not fit.
    """

    def __init__(
        self, session: Session, change: Callable[[str, Any], None], take: Callable[..., None]
    ) -> None:
        super().__init__("Calibration")
        self.session, self._take = session, take
        self._fit: Any = None
        self.form = Form(Preparation, CALIBRATION, change)
        self.disk = words("", small=True)
        self.use_pixel = button(
            "→ pixel",
            "Take the detector pixel from the radius of the bright disk and the semi-angle",
            lambda: self._use_disk("pixel"),
        )
        self.use_angle = button(
            "→ semi-angle",
            "Take the semi-angle from the radius of the bright disk and the detector pixel",
            lambda: self._use_disk("angle"),
        )
        self.use_centre = button(
            "→ centre",
            "Shift the patterns by whole pixels so that the bright disk lies in the middle",
            lambda: self._use_disk("centre"),
        )
        self.size_form = Form(Preparation, ("crop", "bin"), change)
        self.add(
            self.form,
            words("Bright disk in the average pattern (PACBED):"),
            self.disk,
            row(self.use_pixel, self.use_angle, self.use_centre, stretch=True),
            self.size_form,
        )

    def forget(self) -> None:
        """Another measurement: the disk of the last one says nothing of it."""
        self._fit = None

    def fit_disk(self) -> None:
        """Find the bright disk in the average pattern, and offer what follows from it."""
        from ...measurement.detectors import find_disk

        data, seen = self.session.data, self.session.summary
        self._fit = None
        if data is not None and seen is not None:
            try:
                self._fit = find_disk(seen.pacbed)
            except ValueError as error:
                self.disk.setText(str(error))
        for widget in (self.use_pixel, self.use_angle, self.use_centre):
            widget.setEnabled(self._fit is not None)
        if self._fit is None or data is None:
            return
        c = data.calibration
        ky, kx = data.detector_shape
        text = (
            f"radius {self._fit.radius:.1f} px, centre ({self._fit.centre[0]:.1f}, "
            f"{self._fit.centre[1]:.1f}) px, middle ({ky // 2}, {kx // 2})"
        )
        if c.disk_radius is not None:
            change = 100 * (self._fit.radius / c.disk_radius - 1)
            text += f"; by the calibration {c.disk_radius:.1f} px ({change:+.0f} %)"
        if c.pixel_mrad is not None:
            text += f"; {self._fit.radius * c.pixel_mrad:.2f} mrad"
        self.disk.setText(text)
        self.use_pixel.setEnabled(c.semi_angle is not None)
        self.use_angle.setEnabled(c.pixel_mrad is not None)

    def _use_disk(self, what: str) -> None:
        data, fit = self.session.data, self._fit
        if data is None or fit is None:
            return
        c, p = data.calibration, self.session.choices.preparation
        if what == "pixel" and c.semi_angle is not None:
            self._take(pixel_mrad=round(c.semi_angle / fit.radius / p.bin, 6))
        elif what == "angle" and c.pixel_mrad is not None:
            self._take(semi_angle=round(fit.radius * c.pixel_mrad, 4))
        elif what == "centre":
            ky, kx = data.detector_shape
            dy, dx = fit.centre[0] - ky // 2, fit.centre[1] - kx // 2
            raw = self.session.raw
            assert raw is not None
            y, x = p.centre_off((dy, dx), raw.detector_shape)
            self._take(centre_y=round(y, 2), centre_x=round(x, 2))
