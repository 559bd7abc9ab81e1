"""Where several samples disagree: a part of the Compare dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..views import CompareLayers
from ..widgets.basic import Section, button, row, words

if TYPE_CHECKING:
    from ..workspace import Workspace


class SpreadSection(Section):
    """Mean, spread and agreement of the samples of a run.

    Parameters
    ----------
    workspace : Workspace
    layer : callable
        The layer whose run is looked at, or None.
    views : CompareLayers
    """

    def __init__(
        self, workspace: Workspace, layer: Callable[[], Any], views: CompareLayers
    ) -> None:
        super().__init__("Several samples")
        self.workspace, self._layer, self._views = workspace, layer, views
        self.note = words()
        self.spread_button = button(
            "Mean and spread",
            "The mean of the samples beside their standard deviation: the samples disagree where "
            "the right picture is bright",
            self.show_spread,
        )
        self.agreement_button = button(
            "Agreement",
            "Share of the samples that agree whether there is an atom: where it is dark, the depth "
            "is not known",
            lambda: self.show_spread("agreement"),
        )
        self.add(self.note, row(self.spread_button, self.agreement_button, stretch=True))

    def _run(self) -> Any:
        layer = self._layer()
        return None if layer is None else self.workspace.run_layers.run_of(layer)

    def fill(self) -> None:
        """What the chosen volume has to say."""
        run = self._run()
        arrays = {} if run is None or run.frame is None else run.frame.arrays
        self.spread_button.setEnabled("std" in arrays)
        self.agreement_button.setEnabled("agreement" in arrays)
        if run is not None and "std" in arrays:
            samples = run.frame.info.numbers().get("samples", "several")
            self.note.setText(
                f"{run.name} holds {samples} samples; their spread is at most "
                f"{arrays['std'].max():.3f} rad. Samples can also agree on what is wrong."
            )
        else:
            self.note.setText(
                "This volume is one answer. Ask for several samples in a run to see where they "
                "disagree."
            )

    def show_spread(self, what: str = "std") -> None:
        """Mean and spread, or agreement, side by side."""
        run = self._run()
        if run is None:
            return
        layers = self.workspace.run_layers
        mean, other = layers.bring_back(run), layers.layer_of(run, what)
        if mean is None or other is None:
            self.workspace.session.message.emit(
                "info", f"the layer will be there when {run.name} has ended", ""
            )
            return
        self._views.beside(mean, other)
