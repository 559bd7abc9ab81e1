"""LayerCombo: a choice among layers that keeps the layer, not its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import QComboBox, QWidget


class LayerCombo(QComboBox):
    """Shows the names of layers; what is chosen stays chosen when a layer is renamed or moved.

    Parameters
    ----------
    tip : str
        Tooltip.
    """

    def __init__(self, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(6)
        self.setToolTip(tip)

    def fill(self, layers: Sequence[Any], before: Sequence[tuple[str, str]] = ()) -> bool:
        """Offer these layers, and (title, value) of something else before them.

        Returns whether what was chosen is still there; else the first is chosen.
        """
        kept = self.currentData()
        self.clear()
        for title, value in before:
            self.addItem(title, value)
        for layer in layers:
            self.addItem(layer.name, layer.unique_id)
        index = self.findData(kept)
        self.setCurrentIndex(max(0, index) if self.count() else -1)
        return index >= 0

    def choose(self, layer: Any) -> bool:
        """Choose a layer; False if it is not offered."""
        index = self.findData(layer.unique_id)
        if index >= 0:
            self.setCurrentIndex(index)
        return index >= 0

    def layer(self, layers: Sequence[Any]) -> Any:
        """The chosen one among these; None if it is none of them."""
        chosen = self.currentData()
        return next((each for each in layers if each.unique_id == chosen), None)
