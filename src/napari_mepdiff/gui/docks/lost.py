"""A run that a crash interrupted, offered to be gone on with: a part of the Reconstruct dock."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

from ...session.recovery import interrupted
from ..widgets.basic import Section, button, row, words

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ...session.recovery import Interrupted
    from ..workspace import Workspace


class LostRunSection(Section):
    """What an interrupted run left, and what can be done with it; hidden where there is none.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Interrupted run")
        self.workspace, self.session = workspace, workspace.session
        found = interrupted()
        if not found:
            self.hide()
            return
        lost = found[0]
        when = time.strftime("%d %b %H:%M", time.localtime(lost.started))
        self.lost_text = words(
            f"{lost.name} of {lost.path}, begun {when}, did not come to its end: {lost.reason}."
        )
        buttons: list[QWidget] = []
        if lost.checkpoint is not None:
            buttons.append(
                button(
                    "Go on", "Open its data and go on from its last state", lambda: self.go_on(lost)
                )
            )
        if lost.volume is not None:
            buttons.append(
                button(
                    "Show its volume",
                    "The last volume it left, as a layer",
                    partial(self.workspace.files.open_volume, lost.volume),
                )
            )
        buttons.append(
            button("Forget it", "Remove what it left on disk", lambda: self._forget(lost))
        )
        self.add(self.lost_text, row(*buttons, stretch=True))

    def _forget(self, lost: Interrupted) -> None:
        lost.discard()
        self.hide()

    def go_on(self, lost: Interrupted) -> None:
        """Open the data of an interrupted run, then go on from its state."""

        def work(report: Report) -> Any:
            report(0.05)
            data = lost.record.recipe.opening.open()
            lost.record.recipe.preparation.look(data, lambda f: report(0.05 + 0.95 * f))
            return data

        def done(data: Any) -> None:
            try:
                self.workspace.runner.go_on(lost, data)
            except ValueError as error:
                self.session.report(error, "the run does not go on")
            else:
                self.hide()

        self.workspace.jobs.run("open", f"opening {lost.path}", work, done)
