"""Undo, redo, and which keys do what: a part of the Reconstruct dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..keys import KEYS
from ..widgets.basic import Section, button, row, words

if TYPE_CHECKING:
    from ..workspace import Workspace


class UndoSection(Section):
    """Buttons for undo and redo, and the table of keys.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Undo and keyboard", folded=True)
        taken = workspace.keys.taken
        lines = [
            f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{title}"
            f"{' (the key is taken by another plugin)' if key in taken else ''}</td></tr>"
            for key, (title, _name) in KEYS.items()
        ]
        self.undo_button = button(
            "Undo", "Take the last change of settings back (Alt+Z)", workspace.do_undo
        )
        self.redo_button = button("Redo", "Make it again (Alt+Y)", workspace.do_redo)
        self.add(
            row(self.undo_button, self.redo_button, stretch=True),
            words(
                "<table>" + "".join(lines) + "</table>All of these are in the command palette too."
            ),
        )
