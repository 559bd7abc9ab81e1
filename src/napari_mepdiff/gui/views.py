"""Layers of a comparison: side by side, blinking, swiped, overlaid, differences, depth sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from ..evaluation.compare import Comparison
from .layer_data import KEY, span
from .layers import LayerBook

CHANGE = {
    "name": "mep-difference",
    "colors": [
        [0.25, 0.65, 1, 1],
        [0.05, 0.1, 0.2, 1],
        [0, 0, 0, 1],
        [0.25, 0.08, 0.02, 1],
        [1, 0.5, 0.15, 1],
    ],
    "controls": [0, 0.35, 0.5, 0.65, 1],
}  # blue: less than in the reference; orange: more
OURS = ("comparison", "difference", "depth sum")


def show_only(viewer: Any, layers: tuple[Any, ...]) -> None:
    """Show these layers alone. napari lays its whole scene out anew for each that it is told."""
    for layer in viewer.layers:
        if layer.visible != (layer in layers):
            layer.visible = layer in layers


class CompareLayers(QObject):
    """What the Compare dock puts on the screen.

    Parameters
    ----------
    book : LayerBook
    """

    def __init__(self, book: LayerBook, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.book, self.viewer = book, book.viewer
        self._pair: tuple[Any, Any] | None = None
        self._swipe: Any = None
        self._linked: list[Any] = []
        self._looks: list[tuple[Any, Any, Any]] = []
        self._before: dict[Any, bool] | None = None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._blink)

    @property
    def active(self) -> bool:
        """Whether two layers are laid out against each other."""
        return self._pair is not None

    def show(self, view: str, reference: Any, test: Any, found: Comparison, rate: float) -> None:
        """Lay two layers out.

        Parameters
        ----------
        view : str
            'side by side', 'blink', 'swipe', 'difference' or 'overlay'.
        reference, test : layers
        found : Comparison
            Of their volumes.
        """
        self.clear()
        self._before = {layer: layer.visible for layer in self.viewer.layers}
        self._pair = (reference, test)
        self._looks = [(layer, layer.colormap, layer.blending) for layer in self._pair]
        show_only(self.viewer, (reference, test))
        self._link(reference, test, found)
        if view == "side by side":
            self.grid((reference, test))
        elif view == "blink":
            test.visible = False
            self._timer.start(max(50, round(500 / rate)))
        elif view == "swipe":
            reference.visible = test.visible = False
            self._swipe = self.book.add_volume(
                found.reference, "swipe", "comparison", limits=tuple(reference.contrast_limits)
            )
            self.swipe(0.5, found)
        elif view == "difference":
            reference.visible = test.visible = False
            top = float(np.percentile(np.abs(found.difference), 99.9)) or 1.0
            volume = replace(found.test, array=found.difference)
            self.book.add_volume(
                volume, "difference", "difference", limits=(-top, top), colormap=CHANGE
            )
        else:
            reference.colormap, test.colormap = "cyan", "red"
            test.blending = reference.blending = "additive"

    def _link(self, reference: Any, test: Any, found: Comparison) -> None:
        limits = span(found.reference.array)
        reference.contrast_limits = limits
        test.contrast_limits = limits
        test.colormap = reference.colormap = "inferno"
        self.viewer.layers.link_layers([reference, test], ("contrast_limits", "gamma"))
        self._linked = [reference, test]

    def grid(self, layers: tuple[Any, ...]) -> None:
        # the grid fills from the first layer on, the lowest in the list: the reference, at the left
        for layer in layers if tuple(self.viewer.layers)[-len(layers) :] != layers else ():
            self.viewer.layers.move(self.viewer.layers.index(layer), len(self.viewer.layers))
        grid = self.viewer.canvas.grid
        grid.stride, grid.shape, grid.spacing = 1, (-1, len(layers)), 0.02
        grid.enabled = True
        self.viewer.reset_view()

    def beside(self, *layers: Any) -> None:
        """Layers side by side, all others hidden until :meth:`clear`."""
        self.clear()
        self._before = {layer: layer.visible for layer in self.viewer.layers}
        show_only(self.viewer, layers)
        self.grid(layers)

    def sums(self, found: Comparison, names: tuple[str, str]) -> list[Any]:
        """Depth sums of both and their difference, side by side."""
        self.clear()
        self._before = {layer: layer.visible for layer in self.viewer.layers}
        show_only(self.viewer, ())
        a, b = found.reference.depth_sum(), found.test.depth_sum()
        # sums of a free phase have a free offset: it says nothing, and is taken from the difference
        change = (b - b.mean()) - (a - a.mean())
        top = float(np.percentile(np.abs(change), 99.9)) or 1.0
        limits = span(a, low=None)
        pixel, origin = found.reference.voxel_size[1:], found.reference.origin[1:]
        made = [
            self.book.add_image(
                a,
                f"depth sum · {names[0]}",
                pixel=pixel,
                origin=origin,
                colormap="inferno",
                limits=limits,
                role="depth sum",
                replace=True,
            ),
            self.book.add_image(
                b,
                f"depth sum · {names[1]}",
                pixel=pixel,
                origin=origin,
                colormap="inferno",
                limits=limits,
                role="depth sum",
                replace=True,
            ),
            self.book.add_image(
                change,
                "depth sum · difference",
                pixel=pixel,
                origin=origin,
                colormap=CHANGE,
                limits=(-top, top),
                role="depth sum",
                replace=True,
            ),
        ]
        self.viewer.layers.link_layers(made[:2], ("contrast_limits", "gamma"))
        self._linked = made[:2]
        self.grid(tuple(made))
        return made

    def swipe(self, part: float, found: Comparison) -> None:
        """Reference left of the divider, run right of it."""
        if self._swipe is None or self._swipe not in self.viewer.layers:
            return
        width = found.reference.shape[2]
        column = round(np.clip(part, 0, 1) * width)
        np.copyto(self._swipe.data, found.reference.array)
        self._swipe.data[..., column:] = found.test.array[..., column:]
        self._swipe.refresh(thumbnail=False, highlight=False, extent=False)

    def _blink(self) -> None:
        if self._pair is None or any(layer not in self.viewer.layers for layer in self._pair):
            self._timer.stop()
            return
        first, second = self._pair
        first.visible, second.visible = second.visible, first.visible
        if first.visible == second.visible:
            second.visible = not first.visible

    def clear(self) -> None:
        """Back to how it was: no grid, no blinking, no layers of a comparison."""
        self._timer.stop()
        present = list(self.viewer.layers)
        linked = [layer for layer in self._linked if layer in present]
        if len(linked) > 1:
            self.viewer.layers.unlink_layers(linked, ("contrast_limits", "gamma"))
        self._linked = []
        for layer in present:
            if layer.metadata.get(KEY, {}).get("role") in OURS:
                self.viewer.layers.remove(layer)
        for layer, colours, blending in self._looks:
            if layer in present:
                layer.colormap, layer.blending = colours, blending
        self._looks = []
        if self._before is not None:
            for layer, visible in self._before.items():
                if layer in self.viewer.layers and layer.visible != visible:
                    layer.visible = visible
        if self.viewer.canvas.grid.enabled:
            self.viewer.canvas.grid.enabled = False
            self.viewer.reset_view()
        self._pair = self._swipe = self._before = None

    def close(self) -> None:
        """Stop the timer."""
        self._timer.stop()
