"""Which Qt objects Python's cyclic garbage collector would destroy."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def destroyed_by_python(thing: object) -> bool:
    """Whether deleting this wrapper would delete a widget, a graphics item or another QObject."""
    from qtpy import PYSIDE6
    from qtpy.QtCore import QObject
    from qtpy.QtWidgets import QGraphicsItem

    if not isinstance(thing, (QObject, QGraphicsItem)):
        return False
    if PYSIDE6:
        import shiboken6

        return shiboken6.isValid(thing) and shiboken6.ownedByPython(thing)
    from PyQt6 import sip

    return not sip.isdeleted(thing) and sip.ispyowned(thing)


@contextmanager
def collected() -> Iterator[list[str]]:
    """While it lasts, nothing is collected; then: types of what would have been destroyed.

    Any thread may be the one that collects, so nothing that Qt owns the thread of may be among it.
    """
    out: list[str] = []
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield out
        gc.collect()
    finally:
        gc.set_debug(0)
        out += [
            f"{type(o).__module__}.{type(o).__name__}" for o in gc.garbage if destroyed_by_python(o)
        ]
        gc.garbage.clear()
        gc.collect()
