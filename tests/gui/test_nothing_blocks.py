"""The window stays alive: what takes long is done in other threads, and nothing is waited for."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import pytest
from qtpy.QtGui import QCloseEvent

from napari_mepdiff.export.volumes import save_volume
from napari_mepdiff.measurement.formats import own

from .conftest import small_data
from .test_compare_export import choose

SLOW = (
    "measurement.formats:open_4dstem",
    "measurement.dataset:FourDSTEM.loaded",
    "measurement.reading:Reading._pass",
    "measurement.values:faulty_pixels",
    "measurement.detectors:summary",
    "measurement.detectors:virtual_image",
    "measurement.checks:validate",
    "base.hdf5:guard_hdf5",
    "base.hdf5:kind_of",
    "export.volumes:load_volume",
    "export.volumes:save_volume",
    "reconstruction.problem:Problem.from_data",
    "reconstruction.registry:solve",
    "reconstruction.estimate:estimate",
    "evaluation.compare:patterns_at",
    "evaluation.judge:judge",
    "session.runs:RunRecord.frame_of",
)


@pytest.fixture
def where(monkeypatch):
    """In which threads the slow functions were called, by name."""
    seen: dict[str, set[str]] = {}

    def watched(name, real):
        def call(*args, **kwargs):
            main = threading.current_thread() is threading.main_thread()
            seen.setdefault(name, set()).add("window" if main else "worker")
            return real(*args, **kwargs)

        return call

    for path in SLOW:
        module, _, name = path.partition(":")
        owner = importlib.import_module(f"napari_mepdiff.{module}")
        kind, _, method = name.rpartition(".")
        if kind:
            owner = next(c for c in getattr(owner, kind).__mro__ if method in c.__dict__)
        real = owner.__dict__[method]
        if isinstance(real, classmethod):
            new = classmethod(watched(name, real.__func__))
        else:
            new = watched(name, real)
        monkeypatch.setattr(owner, method, new)
        for other in list(sys.modules.values()):  # where it was imported by name
            mine = getattr(other, "__name__", "").startswith("napari_mepdiff")
            if not kind and mine and getattr(other, method, None) is real:
                monkeypatch.setattr(other, method, new)
    return seen


def test_everything_slow_is_done_beside_the_window(desk, where, tmp_path):
    """The first sample froze the window for 6.6 s, a dropped file for up to 10."""
    viewer = desk.viewer
    viewer.open_sample("napari-mepdiff", "mos2")
    desk.until(lambda: desk.session.findings is not None)
    desk.idle()
    assert desk.session.path == "mos2"
    assert viewer.layers["virtual image"].data.shape == desk.session.data.scan_shape
    path, volume = tmp_path / "small.h5", tmp_path / "volume.h5"
    own.save(small_data(), path)
    save_volume(small_data().truth, volume)
    where.clear()
    viewer.open([str(path), str(volume)], plugin="napari-mepdiff")  # what a drop does
    desk.until(lambda: desk.session.path == str(path) and desk.session.findings is not None)
    desk.until(lambda: "volume" in viewer.layers)
    desk.idle()
    desk.settings()
    desk.until(lambda: "Estimated" in desk.reconstruct.estimate.text.text())
    run = desk.run()
    choose(desk.compare.test, run.name)
    choose(desk.compare.reference, "ground truth")
    desk.click(desk.compare.compare_button)
    desk.until(lambda: desk.compare.found is not None)
    desk.click(desk.compare.patterns.button)
    desk.until(lambda: "misfit" in desk.compare.patterns.misfit.text())
    desk.session.change("export", folder=str(tmp_path))
    desk.export.tick(run.name)
    desk.click(desk.export.export_button)
    desk.until(lambda: bool(desk.session.exported))
    assert {name for name, threads in where.items() if "window" in threads} == set()
    assert {"open_4dstem", "summary", "validate", "solve", "patterns_at"} <= set(where)
    assert not desk.errors


def test_stopping_and_closing_wait_for_nothing(desk, monkeypatch, tmp_path):
    """Closing the window in mid-run waited up to two minutes for the step to end."""
    desk.take()
    desk.session.change("export", folder=str(tmp_path))
    desk.settings(steps=5000)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3)
    held = threading.Event()
    take = run.control.take
    monkeypatch.setattr(run.control, "take", lambda *a: (held.wait(30), take(*a))[1])
    joined = []
    real = threading.Thread.join

    def join(thread, timeout=None):
        if threading.current_thread() is threading.main_thread():
            joined.append(thread.name)
        return real(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    desk.workspace.window.ask = lambda _run: "save"
    assert not desk.workspace.window.eventFilter(desk.data.window(), QCloseEvent())
    desk.workspace.close()  # the step has not ended, and cannot yet
    assert joined == []
    assert run.outcome is None
    assert any(t.name == "mepdiff lingers" and not t.daemon for t in threading.enumerate())
    held.set()
    desk.until(lambda: run.outcome is not None)
    assert run.outcome.state == "stopped"
    assert [p.name for p in tmp_path.glob("*_partial.h5")] == ["small_run_1_DPS_partial.h5"]


FIRST = """
import sys, threading
from importlib.abc import MetaPathFinder
where = {}
class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "h5py", "dask.array", "pandas", "pyqtgraph", "matplotlib.pyplot"):
            main = threading.current_thread() is threading.main_thread()
            where.setdefault(name, "window" if main else "worker")
        return None
sys.meta_path.insert(0, Watch())
import napari
from qtpy.QtWidgets import QApplication
from napari_mepdiff.gui.contributions import show_docks
viewer = napari.Viewer()
already = set(where)
panels = show_docks(viewer)
print(all(panel.dock is None and panel.note.text() for panel in panels))
while not all(panel.dock is not None for panel in panels):
    QApplication.processEvents()
print(where["torch"], sorted(n for n in where if where[n] == "window" and n not in already))
import gc
from qtpy.QtCore import QObject, QThread
mine, foreign = QThread.currentThread(), []
for thing in gc.get_objects():
    try:
        if issubclass(type(thing), QObject) and thing.thread() != mine:
            foreign.append(type(thing).__name__)
    except RuntimeError:  # its C++ part is deleted
        pass
print(foreign)
panels[0].dock.workspace.close()
viewer.close()
"""


@pytest.mark.usefixtures("qtbot")
def test_the_first_dock_is_there_at_once_and_pytorch_is_loaded_beside_it(tmp_path):
    """Opening the first dock froze napari for two to three seconds.

    What is imported in the thread makes no object of Qt's there.
    """
    out = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=120, check=False
    )
    assert out.stdout.splitlines()[-3:] == ["True", "worker []", "[]"], out.stderr
