"""Which viewer a plugin was given: napari hands out a proxy, and one workspace belongs to each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MEANT: list[Any] = []  # viewers that docks are being opened for


@contextmanager
def in_front(viewer: Any) -> Iterator[None]:
    """While it lasts, proxies of this viewer are known to be its, wherever its window stands."""
    _MEANT.append(viewer)
    try:
        yield
    finally:
        _MEANT.remove(viewer)


def itself(viewer: Any) -> Any:
    """The viewer behind what napari handed over; layers can be told apart only through it.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy

    Raises
    ------
    RuntimeError
        If it is a proxy of a viewer that is not in front.
    """
    import napari
    from napari.components import ViewerModel

    if issubclass(type(viewer), ViewerModel):
        return viewer
    for candidate in (*_MEANT, napari.current_viewer()):
        if candidate is not None and hash(candidate) == hash(viewer):  # a proxy's hash is its own
            return candidate
    raise RuntimeError("click on the napari window that this is for, then try again")
