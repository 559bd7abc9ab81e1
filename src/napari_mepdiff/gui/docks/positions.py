"""Told against refined positions of the beam: a part of the Microscope dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        self.show_button = button(
            "Show positions",
            "Arrows from the told to the refined positions, over the virtual image. They follow a "
            "run that goes on; take the layer away to end that.",
            self.show_positions,
        )
        self.said = words("", small=True)
        self.add(row(self.show_button, stretch=True), self.said)

    def show_look(self, look: Look) -> None:
        """What was found, as it is now; arrows that are in the picture follow."""
        self.look = look
        arrows = look.moves
        if arrows is None:
            reason = NOTHING if look.found is None else "the refined positions are of another scan"
            allow(self.show_button, reason)
            self.said.setText("")
            return
        allow(self.show_button, "" if arrows.largest > 0 else "no position has moved")
        layers = self.workspace.measurement_layers
        if layers.moves_layer() is not None:
            layers.show_moves(arrows)
        drawn = "in their true length"
        if arrows.exaggeration != 1:
            drawn = f"{arrows.exaggeration:g} times longer than they are"
        self.said.setText(
            f"{len(arrows.vectors)} positions moved by {arrows.rms:.3g} Å rms, at most "
            f"{arrows.largest:.3g} Å. Arrows are drawn {drawn}."
        )

    def show_positions(self) -> None:
        """Arrows in the picture, over the virtual image."""
        if self.look is None or self.look.moves is None:
            return
        viewer = self.workspace.viewer
        self.workspace.measurement_layers.show_moves(self.look.moves).visible = True
        if VIRTUAL in viewer.layers:
            viewer.layers[VIRTUAL].visible = True
