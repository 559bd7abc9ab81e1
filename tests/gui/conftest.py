"""A real viewer with its docks, a small measurement, and eyes for what a test leaves behind."""

from __future__ import annotations

import gc
import threading
import time
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
        optics=Optics(semi_angle=20, overfocus=60, C30=5000), boundary="periodic", canvas=(32, 32),
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
        widgets = dict(zip(DOCKS, show_docks(viewer), strict=True))
        self.data, self.reconstruct = widgets["Data"], widgets["Reconstruct"]
        self.guidance, self.compare, self.export = widgets["Guidance"], widgets["Compare"], widgets["Export"]
        self.docks = widgets
        self.workspace = self.data.workspace
        self.session = self.workspace.session
        self.messages: list[tuple[str, str, str]] = []
        self.session.message.connect(self._heard)

    def _heard(self, level, text, details) -> None:
        self.messages.append((level, text, details))

    @property
    def errors(self) -> list[str]:
        return [text for level, text, _ in self.messages if level == "error"]

    def until(self, condition, seconds=30.0):
        self.qtbot.waitUntil(condition, timeout=round(seconds * 1e3))

    def idle(self, seconds=60.0):
        self.until(lambda: not self.workspace.jobs.running, seconds)

    def take(self, data=None, name="small.h5"):
        """The small measurement, looked through."""
        self.workspace.take(data if data is not None else small_data(), name)
        self.until(lambda: self.session.findings is not None)
        self.idle()

    def click(self, button):
        from qtpy.QtCore import Qt

        assert button.isEnabled(), f"{button.text()} is greyed out"
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def settings(self, **fields):
        """Settings of DPS for quick runs: free voxels, a tiny prior."""
        self.session.change_settings("dps", **{"prior": self.prior, "guidance": "paper", "elements": (), "steps": 30,
                                               "evaluations": 10, **fields})

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
    docks = list(out.docks.values())
    workspace = out.workspace
    out.__dict__.clear()  # pytest keeps the desk itself
    watched = [weakref.ref(o) for o in (viewer, workspace, *docks)]
    del docks, workspace
    shut(viewer)
    del viewer
    left = [type(w()).__name__ for w in pumped(watched)]
    assert not left, f"still alive after closing: {left}"
    assert gc.isenabled(), "garbage collection was left off"


def shut(viewer):
    """Close a viewer as its window would."""
    with patch.object(viewer.window._qt_window, "_save_current_window_settings"):
        viewer.close()


def pumped(watched):
    """Let Qt delete what it will; the weak references that are still alive after that."""
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + 5
    while any(w() is not None for w in watched) and time.monotonic() < deadline:
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()
        gc.collect()
    return [w for w in watched if w() is not None]


def _ours(before):
    return [t for t in threading.enumerate() if t.ident not in before and t.name.startswith("mepdiff")]


def truth_of(data):
    return np.asarray(data.truth.array)


__all__ = ["ELEMENTS", "Desk", "small_data"]
