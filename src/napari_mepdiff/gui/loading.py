"""Loading: what takes seconds to import is imported in a thread while the window stays alive."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer

from .preferences import read

HEAVY = (  # they define classes of Qt's, but make no object: that belongs to the window's thread
    "torch",
    "pandas",  # napari imports it with the first points
    "napari_mepdiff.session.session",
    "napari_mepdiff.session.runner",
    "napari_mepdiff.measurement.checks",
    "napari_mepdiff.measurement.detectors",
    "napari_mepdiff.measurement.orientation",
    "napari_mepdiff.evaluation.compare",
    "napari_mepdiff.reconstruction.diffusion.dps",
    "napari_mepdiff.reconstruction.estimate",
    "napari_mepdiff.reconstruction.preview",
    "napari_mepdiff.export.volumes",
    "pyqtgraph",
    "napari_mepdiff.gui.docks.data",
    "napari_mepdiff.gui.docks.reconstruct",
    "napari_mepdiff.gui.docks.guidance",
    "napari_mepdiff.gui.docks.compare",
    "napari_mepdiff.gui.docks.export",
)


class Loading(QObject):
    """Imports what the docks need, once for this process, and tells when it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._waiting: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(30)
        self._timer.timeout.connect(self._look)

    @property
    def ready(self) -> bool:
        """Whether all is imported."""
        return all(name in sys.modules for name in HEAVY) and not self._busy

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def then(self, action: Callable[[], None]) -> None:
        """Call this when all is imported: at once, if it is; or when the import has failed."""
        if self.ready and not self._waiting:
            action()
            return
        self._waiting.append(action)
        if self._thread is None:
            self.error = None
            self._thread = threading.Thread(target=self._work, name="mepdiff loading", daemon=True)
            self._thread.start()
            self._timer.start()

    def _work(self) -> None:
        try:
            for name in HEAVY:
                importlib.import_module(name)
            read()
        except BaseException as error:
            self.error = error

    def _look(self) -> None:
        if self._busy:
            return
        self._thread = None
        if not self._waiting:
            self._timer.stop()
            return
        self._waiting.pop(0)()  # one in a turn: the window draws in between


_LOADING: list[Loading] = []


def loading() -> Loading:
    """The one of this process."""
    if not _LOADING:
        _LOADING.append(Loading())
    return _LOADING[0]
