"""MeasurementLayers: what belongs to a measurement in the viewer: virtual image, cross, truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .layer_data import KEY, scan_affine

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..microscope.moves import Moves
    from ..session.session import Session
    from ..specimen.volume import Volume
    from .layers import LayerBook

VIRTUAL, CROSS, MOVES = "virtual image", "scan position", "refined positions"


class MeasurementLayers:
    """Layers of the measurements of a session.

    Parameters
    ----------
    book : LayerBook
    session : Session
    """

    def __init__(self, book: LayerBook, session: Session) -> None:
        self.book, self.viewer, self.session = book, book.viewer, session
        self._truths: list[tuple[Volume, Any, str]] = []  # ground truth, its layer, of what

    # ---- ground truth -----------------------------------------------------------------------
    def truth_layer(self, data: FourDSTEM | None) -> Any:
        """The layer that shows the ground truth of these data, or None."""
        for truth, layer, _name in self._truths:
            if data is not None and truth is data.truth and layer in self.viewer.layers:
                return layer
        return None

    def show_truth(self, data: FourDSTEM | None = None) -> Any:
        """The ground truth of data (those that are open) as a layer; None where there is none."""
        data = self.session.data if data is None else data
        if data is None or data.truth is None:
            return None
        known = self.truth_layer(data)
        if known is not None:
            return known
        name, title = self._name_of(data), "ground truth"
        if any(layer in self.viewer.layers for _, layer, _ in self._truths):
            title = f"ground truth of {name}"
        layer = self.book.add_volume(data.truth, title, "truth", select=False)
        self._truths.append((data.truth, layer, name))
        self.book.layers_changed.emit()
        return layer

    def _name_of(self, data: FourDSTEM) -> str:
        """Name of a measurement: of a run's, or of the one that is open."""
        runs = (r.measurement_name for r in self.session.runs if r.data is data)
        return next(runs, self.session.measurement_name)

    def measurement_of(self, layer: Any) -> str:
        """Name of the measurement that a layer which is no run's belongs to; empty if none."""
        return next((name for _, known, name in self._truths if known is layer), "")

    # ---- where the beam was -----------------------------------------------------------------
    def show_virtual(self, data: FourDSTEM, image: NDArray[Any], name: str = VIRTUAL) -> Any:
        """A virtual image where the scan was, in Å (in scan positions if the step is not known)."""
        known = next((x for x in self.viewer.layers if x.name == name), None)
        first = known is None or known.data.shape == (1, 1)  # or what held its place
        shown = first and not any(
            other.metadata.get(KEY, {}).get("role") == "run" for other in self.viewer.layers
        )
        layer = self.book.add_image(
            image,
            name,
            pixel=(1, 1),
            affine=scan_affine(data),
            role=VIRTUAL,
            replace=True,
            visible=shown,
        )
        if shown:
            self.viewer.reset_view()
        return layer

    def mark_position(self, y: float, x: float) -> None:
        """A cross at the scan position that is looked at, in Å."""
        if CROSS in self.viewer.layers:
            self.viewer.layers[CROSS].data = np.array([[y, x]])
            return
        before = set(self.viewer.layers.selection)
        if VIRTUAL not in self.viewer.layers:
            return  # the first layer sets the view; a point has no size
        self.book.add_points(
            np.array([[y, x]]),
            CROSS,
            size=1.2,
            face_color="#e0a030",
            border_color="black",
            border_width=0.1,
            symbol="cross",
            visible=self.viewer.layers[VIRTUAL].visible,
            metadata={KEY: {"role": CROSS}},
        )
        self.viewer.layers.selection = before

    def moves_layer(self) -> Any:
        """The layer with arrows from told to refined positions, or None."""
        layers = self.viewer.layers
        return next((x for x in layers if x.metadata.get(KEY, {}).get("role") == MOVES), None)

    def show_moves(self, moves: Moves) -> Any:
        """Arrows from told to refined positions, in Å; the name of the layer says how much longer
        than the true moves they are drawn."""
        layer, width = self.moves_layer(), 0.06 * moves.spacing
        title = f"{MOVES} × {moves.exaggeration:g}"
        if layer is None:
            before = set(self.viewer.layers.selection)
            layer = self.book.add_arrows(
                moves.vectors, title, edge_color="#ff9f43", edge_width=width, opacity=1.0
            )
            self.viewer.layers.selection = before
        else:
            layer.data = moves.vectors
            layer.edge_width = width
            layer.name = title
        layer.metadata = {
            KEY: {"role": MOVES, "exaggeration": moves.exaggeration, "rms": moves.rms}
        }
        return layer

    def pick_on(self, layer: Any, data: FourDSTEM, picked: Callable[[int, int], Any]) -> None:
        """Clicks on the virtual image in the picture choose the scan position."""
        inverse = np.linalg.inv(scan_affine(data))
        layer.mouse_drag_callbacks.clear()

        def click(_layer: Any, event: Any) -> None:
            if event.button == 1:
                place = inverse @ np.array([*event.position[-2:], 1.0])
                picked(round(place[0]), round(place[1]))

        layer.mouse_drag_callbacks.append(click)
