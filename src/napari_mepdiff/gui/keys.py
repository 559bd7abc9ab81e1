"""Keys for steering a run: only those that nobody else has, and given back at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

KEYS = {
    "Alt+R": ("Start, or go on", "toggle"),
    "Alt+P": ("Pause, or go on", "hold"),
    "Alt+N": ("One step", "single"),
    "Alt+S": ("Stop; again, if that takes long: do not wait for the step", "stop"),
    "Alt+Z": ("Undo the last change of settings", "undo"),
    "Alt+Y": ("Redo it", "redo"),
    "Alt+B": ("Back ten steps", "back"),
}
log = logging.getLogger(__name__)


class Keys:
    """Bindings of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    press : callable
        Called with the name of what a key does.

    Attributes
    ----------
    taken : tuple of str
        Keys that had a meaning before, and keep it.
    """

    def __init__(self, viewer: Any, press: Callable[[str], None]) -> None:
        self._viewer, self._bound = viewer, []
        foreign = _foreign(viewer)
        self.taken = tuple(key for key in KEYS if key in foreign)
        for key, (title, name) in KEYS.items():
            if key in foreign:
                log.info("%s is taken already: '%s' is in the docks and the palette", key, title)
                continue

            def pressed(_viewer: Any, name: str = name) -> None:
                press(name)

            viewer.bind_key(key, pressed)
            self._bound.append((key, pressed))

    def release(self) -> None:
        """Give back those that are still ours."""
        now = {str(key): function for key, function in self._viewer.keymap.items()}
        for key, function in self._bound:
            if now.get(key) is function:
                self._viewer.bind_key(key, None)
        self._bound.clear()


def _foreign(viewer: Any) -> set[str]:
    """Keys that mean something to napari, to its user or to another plugin."""
    from napari.settings import get_settings

    chosen = get_settings().shortcuts.shortcuts.values()
    keys = [*viewer.keymap, *viewer.class_keymap, *(key for each in chosen for key in each)]
    return {str(key) for key in keys}
