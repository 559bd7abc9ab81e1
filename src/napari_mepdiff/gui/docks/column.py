"""The depth profile of a column of atoms: a part of the Compare dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QPushButton

from ...evaluation.compare import depth_profile
from ...session.choices import ComparisonChoices
from ..layer_data import volume_of
from ..widgets.basic import Section, row, words
from ..widgets.depth_plots import Profile
from ..widgets.forms import Form

if TYPE_CHECKING:
    from ..workspace import Workspace


class ColumnSection(Section):
    """Phase along depth, of the layers that are compared, at a column that is clicked.

    Parameters
    ----------
    workspace : Workspace
    layers : callable
        The layers whose profile is drawn.
    """

    def __init__(self, workspace: Workspace, layers: Callable[[], list[Any]]) -> None:
        super().__init__("Depth profile")
        self.session, self.viewer, self._layers = workspace.session, workspace.viewer, layers
        self.place: tuple[float, float] | None = None
        self.pick_button = QPushButton("Pick a column")
        self.pick_button.setCheckable(True)
        self.pick_button.setToolTip(
            "While this is on, a click in the picture chooses the column (atoms one above the "
            "other) whose depth profile is drawn"
        )
        self.pick_button.toggled.connect(self._picking)
        self.form = Form(ComparisonChoices, ("radius",), lambda _name, value: self._radius(value))
        self.form.show_values(self.session.choices.comparison)
        self.plot = Profile()
        self.key = words("", small=True)
        self.where = words("", small=True)
        self.add(row(self.pick_button, stretch=True), self.key, self.plot, self.where, self.form)

    def _radius(self, value: float) -> None:
        self.session.change("comparison", radius=value)
        self.draw()

    def _picking(self, on: bool) -> None:
        if on:
            self.viewer.mouse_drag_callbacks.append(self.clicked)
        elif self.clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self.clicked)

    def clicked(self, _viewer: Any, event: Any) -> None:
        """A click in the picture."""
        if event.button == 1:
            self.pick(float(event.position[-2]), float(event.position[-1]))

    def pick(self, y: float, x: float) -> None:
        """Draw the profile of the column at (y, x) Å."""
        self.place = (y, x)
        self.draw()

    def draw(self) -> None:
        """Draw the profiles anew."""
        if self.place is None:
            return
        radius = self.session.choices.comparison.radius
        profiles, unit = [], "rad"
        for layer in self._layers():
            try:
                volume = volume_of(layer)
                profiles.append((layer.name, *depth_profile(volume, *self.place, radius)))
                unit = volume.unit
            except ValueError as error:
                self.where.setText(str(error))
                return
        self.plot.show_profiles(profiles, unit)
        self.key.setText(self.plot.key([name for name, _, _ in profiles]))
        y, x = self.place
        self.where.setText(f"column at ({y:.2f}, {x:.2f}) Å, mean within {radius:g} Å")

    def close_picking(self) -> None:
        """Let the viewer's mouse go."""
        self._picking(False)
