"""A real viewer with its docks, a small measurement, and eyes for what a test leaves behind."""

from __future__ import annotations

import gc
import sys
import threading
import time
import types
import weakref
from unittest.mock import patch

import numpy as np
import pytest
import torch

from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.specimen.volume import Volume
from tests.prior.nets import tiny
from tests.reconstruction.small import ELEMENTS, crystal_problem


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    """Nothing is read from, or left in, the places of the person who runs the tests."""
    monkeypatch.setenv("MEPDIFF_CONFIG", str(tmp_path / "last.json"))
    monkeypatch.setenv("MEPDIFF_RECOVERY", str(tmp_path / "recovery"))


def small_data(truth: bool = True, seed: int = 0) -> FourDSTEM:
    """81 patterns of 32 × 32 px of a crystal in 4 slices of 32 × 32 voxels, with ground truth."""
    problem, volume = crystal_problem(seed=seed)
    return FourDSTEM(
        problem.patterns.reshape(9, 9, 32, 32),
        Calibration(pixel_size=1 / 6.4, energy=300, semi_angle=20, scan_step=(6.4 / 9, 6.4 / 9)),
        optics=Optics(semi_angle=20, overfocus=60, C30=5000),
        boundary="periodic",
        canvas=(32, 32),
        truth=Volume(volume, (1.6, 0.2, 0.2), energy=300.0) if truth else None,
        provenance={"crystal": {"formula": "SrTi"}} if truth else {},
    )


@pytest.fixture(scope="session")
def prior_file(tmp_path_factory):
    """A tiny prior: steps take milliseconds."""
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    torch.manual_seed(0)
    tiny().save(path)
    return str(path)


class Desk:
    """A viewer, its docks by name, and a pair of hands."""

    def __init__(self, viewer, qtbot, prior) -> None:
        from napari_mepdiff.gui.contributions import DOCKS, raise_dock, show_docks

        self.viewer, self.qtbot, self.prior, self.raise_dock = viewer, qtbot, prior, raise_dock
        panels = show_docks(viewer)
        qtbot.waitUntil(lambda: all(p.dock is not None for p in panels), timeout=60000)
        widgets = {name: panel.dock for name, panel in zip(DOCKS, panels, strict=True)}
        self.panels = panels
        self.data, self.reconstruct = widgets["Data"], widgets["Reconstruct"]
        self.guidance, self.compare, self.export = (
            widgets["Guidance"],
            widgets["Compare"],
            widgets["Export"],
        )
        self.docks = widgets
        self.workspace = self.data.workspace
        self.session = self.workspace.session
        self.messages: list[tuple[str, str, str]] = []
        self.session.message.connect(self._heard)
        self.session.change("setup", slices=4)  # of the small measurement

    def _heard(self, level, text, details) -> None:
        self.messages.append((level, text, details))

    @property
    def errors(self) -> list[str]:
        return [text for level, text, _ in self.messages if level == "error"]

    def until(self, condition, seconds=30.0):
        self.qtbot.waitUntil(condition, timeout=round(seconds * 1e3))

    def idle(self, seconds=60.0):
        from qtpy.QtWidgets import QApplication

        self.until(lambda: not self.workspace.jobs.running, seconds)
        QApplication.processEvents()  # and what was left for the turn after

    def microscope(self):
        """The Microscope dock in front, everything shown."""
        dock = self.docks["Microscope"]
        self.raise_dock(dock)
        self.until(dock.isVisible)
        while dock._due.isActive() or self.workspace.jobs.running:
            self.until(lambda: not dock._due.isActive())
            self.idle()
        return dock

    def take(self, data=None, name="small.h5"):
        """The small measurement, looked through."""
        self.workspace.files.take(data if data is not None else small_data(), name)
        self.until(lambda: self.session.findings is not None)
        self.idle()

    def click(self, button):
        from qtpy.QtCore import Qt

        assert button.isEnabled(), f"{button.text()} is greyed out"
        if button.isVisible():  # a dock that has only just come has no room for it yet
            self.until(lambda: not button.rect().isEmpty())
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def settings(self, **fields):
        """Settings of DPS for quick runs: free voxels, a tiny prior."""
        self.session.change_settings(
            "dps",
            **{
                "prior": self.prior,
                "guidance": "newton",
                "elements": (),
                "steps": 30,
                "evaluations": 10,
                **fields,
            },
        )

    def run(self, **fields):
        """A quick run from Start to its end."""
        self.settings(**fields)
        self.click(self.reconstruct.start_button)
        run = self.session.runs[-1]
        self.until(lambda: not run.going_on, 60)
        return run


@pytest.fixture
def desk(make_napari_viewer, qtbot, prior_file, monkeypatch):
    """A viewer that is shown, with all docks."""
    from qtpy.QtWidgets import QApplication

    _leave_out_of_collections()
    # napari writes all its settings for each dock that opens, a third of a second in all
    from napari.settings import _base

    monkeypatch.setattr(
        _base.EventedConfigFileSettings, "_maybe_save", lambda *_: None, raising=False
    )
    before = {t.ident for t in threading.enumerate()}
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    out = Desk(viewer, qtbot, prior_file)
    yield out
    out.session.message.disconnect(out._heard)
    out.workspace.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _ours(before):
        QApplication.processEvents()
        time.sleep(0.01)
    assert not _ours(before), "a worker of ours is still alive"
    docks = [*out.docks.values(), *out.panels]
    workspace = out.workspace
    out.__dict__.clear()  # pytest keeps the desk itself
    watched = [weakref.ref(o) for o in (viewer, workspace, *docks)]
    del docks, workspace
    shut(viewer)
    del viewer
    left = [f"{type(w()).__name__} held by {holders(w())}" for w in pumped(watched)]
    assert not left, "still alive after closing: " + "; ".join(left)
    assert gc.isenabled(), "garbage collection was left off"


def _leave_out_of_collections():
    """What is there before a viewer, all libraries too: no collection need walk it.

    Each test collects four times and more, 0.4 s each with everything.
    """
    import napari._qt.qt_main_window
    import napari.viewer  # noqa: F401

    from napari_mepdiff.gui import contributions  # noqa: F401

    gc.freeze()


def shut(viewer):
    """Close a viewer as its window would."""
    with patch.object(viewer.window._qt_window, "_save_current_window_settings"):
        viewer.close()


def pumped(watched):
    """Let Qt delete what it will; the weak references that are still alive after that."""
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + 20
    while any(w() is not None for w in watched) and time.monotonic() < deadline:
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()
        gc.collect()
    return [w for w in watched if w() is not None]


def holders(thing, depth=6):
    """Shortest chain of what keeps an object alive, from a module, a frame or a root to it."""
    own = {id(sys._getframe()), id(sys._getframe(1))}
    seen, queue = {id(thing)}, [(thing, [])]
    best = []
    while queue:
        last, chain = queue.pop(0)
        best = max(best, chain, key=len)
        if len(chain) >= depth or len(seen) > 4000:
            break
        for other in gc.get_referrers(last):
            if id(other) in own or id(other) in seen or isinstance(other, weakref.ref):
                continue
            if other is queue or any(other is entry for entry in queue) or other is chain:
                continue
            seen.add(id(other))
            words = [*chain, _called(other, last)]
            if isinstance(other, types.ModuleType | types.FrameType):
                return " < ".join(words)
            queue.append((other, words))
    return " < ".join(best)


def _called(holder, held):
    kind = type(holder).__name__
    if isinstance(holder, dict):
        names = [str(k)[:40] for k, v in holder.items() if v is held][:2]
        return f"{kind}[{', '.join(names)}]"
    if isinstance(holder, types.FrameType):
        return f"frame {holder.f_code.co_filename[-40:]}:{holder.f_lineno}"
    # a Qt object that is deleted already can be asked nothing
    named = isinstance(holder, types.FunctionType | types.MethodType | type)
    return f"{kind} {holder.__qualname__}" if named else kind


def _ours(before):
    return [
        t for t in threading.enumerate() if t.ident not in before and t.name.startswith("mepdiff")
    ]


def truth_of(data):
    return np.asarray(data.truth.array)


__all__ = ["ELEMENTS", "Desk", "small_data"]
