"""How scan and detector are turned against each other: a part of the Data dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...measurement.preparation import ORIENTED, Preparation
from ..widgets.basic import Section, button, row, words
from ..widgets.forms import Form
from ..widgets.plot import Plot

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ..workspace import Workspace


class OrientationSection(Section):
    """Mirrors, transposition and rotation, and the estimate of the latter two.

    Parameters
    ----------
    workspace : Workspace
    change : callable
        Changes a field of the preparation; raises ValueError where it does not fit.
    take : callable
        Takes fields of the preparation over; says it where they do not fit.
    """

    def __init__(
        self, workspace: Workspace, change: Callable[[str, Any], None], take: Callable[..., None]
    ) -> None:
        super().__init__("Orientation")
        self.workspace, self.session, self._take = workspace, workspace.session, take
        self.found: Any = None
        self.orientation_form = Form(Preparation, ("transpose", "flip_y", "flip_x"), change)
        self.estimate_button = button(
            "Estimate rotation",
            "From the centre of mass of the patterns: the rotation at which its field has no curl, "
            "as the gradient of a phase has none",
            self.estimate_rotation,
        )
        self.use_rotation = button(
            "Use", "Take the estimated rotation (and transposition) over", self._use_rotation
        )
        self.use_rotation.setEnabled(False)
        self.turned = words(
            "Curl leaves θ and θ + 180° open; the sign of the defocus tells them apart.", small=True
        )
        self.curl = Plot("rotation (°)", "curl²", 90)
        self.curl_line = self.curl.plot(pen="#4c9be8")
        self.curl.hide()
        self.add(
            self.orientation_form,
            row(self.estimate_button, self.use_rotation, stretch=True),
            self.turned,
            self.curl,
        )

    def forget(self) -> None:
        """Another measurement: the estimate for the last one says nothing of it."""
        self.found = None

    def estimate_rotation(self) -> None:
        """Estimate the scan rotation in the background."""
        data = self.session.data
        if data is None:
            return

        def work(report: Report) -> Any:
            from ...measurement.detectors import centre_of_mass
            from ...measurement.orientation import estimate_rotation

            return estimate_rotation(data, centre_of_mass(data, lambda f: report(0.9 * f)))

        self.workspace.jobs.run(
            "rotation", "estimating the rotation", work, self._estimated, shown_in=self
        )

    def _estimated(self, found: Any) -> None:
        self.found = found
        contrast = float(found.curl.min() / max(found.curl.max(), 1e-300))
        doubt = "" if contrast < 0.5 else " The minimum is shallow: do not rely on it."
        other = found.angle - 180 if found.angle > 0 else found.angle + 180
        self.turned.setText(
            f"rotation {found.angle:.1f}° or {other:.1f}°"
            f"{', detector axes to be swapped' if found.transpose else ''}.{doubt}"
        )
        self.curl.show()
        self.curl_line.setData(found.angles, found.curl / max(found.curl.max(), 1e-300))
        self.use_rotation.setEnabled(True)

    def _use_rotation(self) -> None:
        found, p = self.found, self.session.choices.preparation
        if found is not None:
            after = p.oriented(found)
            self._take(
                **{n: getattr(after, n) for n in ORIENTED if getattr(after, n) != getattr(p, n)}
            )
            self.use_rotation.setEnabled(False)
