"""Whether a refinement has come to rest: a part of the Microscope dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..widgets.basic import Section, words
from ..widgets.plot import HUES
from ..widgets.refine_curves import RefineCurves

if TYPE_CHECKING:
    from ...session.runs import RunRecord


class ConvergenceSection(Section):
    """Curves of the run that is shown."""

    def __init__(self) -> None:
        super().__init__("Convergence")
        self.said = words("", small=True)
        self.curves = RefineCurves()
        self.add(self.said, self.curves)

    def show_run(self, run: RunRecord | None) -> None:
        """Draw a run; None where nothing or a file is shown."""
        if run is None:
            self.curves.clear()
            self.said.setText("Curves come with a run of the solver refine; a file has none.")
            return
        self.curves.show_run(run.number, run.frames.records)
        self.said.setText(
            f"{run.name}: <span style='color:{HUES[0]}'>●</span> fitted &nbsp; "
            f"<span style='color:{HUES[1]}'>●</span> held out of the fit"
        )
