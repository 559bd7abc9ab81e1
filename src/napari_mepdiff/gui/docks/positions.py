"""Told against refined positions of the beam: a part of the Microscope dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..layer_data import images
from ..measurement_layers import VIRTUAL
from ..widgets.basic import Section, allow, button, row, words
from .microscope_values import NOTHING

if TYPE_CHECKING:
    from ...session.microscope_look import Look
    from ..workspace import Workspace


class PositionsSection(Section):
    """How far the positions moved, and arrows in the picture.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Positions")
        self.workspace, self.session = workspace, workspace.session
        self.look: Look | None = None
        self._hidden: list[Any] = []  # volumes that lay over the virtual image
        self.show_button = button(
            "Show positions",
            "Arrows from the told to the refined positions, over the virtual image; volumes are "
            "hidden meanwhile. They follow a run that goes on. Click again to take them away.",
            self._toggled,
        )
        self.show_button.setCheckable(True)
        self.said = words("", small=True)
        self.add(row(self.show_button, stretch=True), self.said)

    def show_look(self, look: Look) -> None:
        """What was found, as it is now; arrows that are in the picture follow."""
        self.look = look
        arrows, layers = look.moves, self.workspace.measurement_layers
        shown = layers.moves_layer() is not None
        self.show_button.setChecked(shown)
        if arrows is None:
            reason = NOTHING if look.found is None else "the refined positions are of another scan"
            allow(self.show_button, "" if shown else reason)
            self.said.setText("")
            return
        allow(self.show_button, "" if arrows.largest > 0 or shown else "no position has moved")
        if shown:
            layers.show_moves(arrows)
        drawn = "in their true length"
        if arrows.exaggeration != 1:
            drawn = f"{arrows.exaggeration:g} times longer than they are"
        self.said.setText(
            f"{len(arrows.vectors)} positions moved by {arrows.rms:.3g} Å rms, at most "
            f"{arrows.largest:.3g} Å. Arrows are drawn {drawn}."
        )

    def _toggled(self) -> None:
        if self.show_button.isChecked():
            self.show_positions()
        else:
            self.hide_positions()

    def show_positions(self) -> None:
        """Arrows in the picture, over the virtual image."""
        if self.look is None or self.look.moves is None:
            return
        viewer = self.workspace.viewer
        self.workspace.measurement_layers.show_moves(self.look.moves).visible = True
        self.show_button.setChecked(True)
        if VIRTUAL not in viewer.layers:
            return
        viewer.layers[VIRTUAL].visible = True
        self._hidden = [layer for layer in images(viewer) if layer.visible]
        for layer in self._hidden:
            layer.visible = False

    def hide_positions(self) -> None:
        """Take the arrows away; the volumes come back."""
        viewer, layer = self.workspace.viewer, self.workspace.measurement_layers.moves_layer()
        if layer is not None:
            viewer.layers.remove(layer)
        for volume in self._hidden:
            if volume in viewer.layers:
                volume.visible = True
        self._hidden = []
        self.show_button.setChecked(False)
