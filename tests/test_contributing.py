"""The examples of CONTRIBUTING.md do what it says, and its picture shows the floors of today."""

from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np
import pytest
import torch

from .conftest import ROOT
from .needs import needs


def _load(name, tmp_path, monkeypatch):
    """An example as the module that its first line names."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = re.search(rf"```python {name}\n(.*?)```", text, re.S)[1]
    place = re.match(r"# src/(\S+)\.py", code)[1].replace("/", ".")
    path = tmp_path / f"{name}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(place, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, place, module)
    spec.loader.exec_module(module)
    return module


def test_the_solver(tmp_path, monkeypatch):
    from napari_mepdiff.reconstruction.control import Control
    from napari_mepdiff.reconstruction.registry import SOLVERS, Solver, solve
    from tests.reconstruction.small import crystal_problem

    _load("solver", tmp_path, monkeypatch)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    line = re.search(r'"steepest": (Solver\(.*\)),', text)[1]
    monkeypatch.setitem(SOLVERS, "steepest", eval(line, {"Solver": Solver}))
    problem, _ = crystal_problem()
    settings, control = SOLVERS["steepest"].default(iterations=6), Control()
    frames = list(solve(problem, settings, control))
    assert frames[-1].step == 6
    assert frames[-1].loss < frames[0].loss
    with pytest.raises(ValueError, match="cannot begin from a given volume"):
        list(solve(problem, settings, start=frames[-1].volume))


def test_the_reader(tmp_path, monkeypatch):
    from napari_mepdiff.measurement.formats.common import Options, ReadError

    module = _load("reader", tmp_path, monkeypatch)
    counts = np.arange(2 * 3 * 4 * 5, dtype="<u2").reshape(2, 3, 4, 5)
    path = tmp_path / "scan.raw16"
    path.write_bytes(np.array(counts.shape, "<i4").tobytes() + counts.tobytes())
    assert np.array_equal(np.asarray(module.read(path, Options()).data), counts)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReadError, match="cut short"):
        module.read(path, Options())


def test_the_dock(make_napari_viewer, qtbot, tmp_path, monkeypatch):
    from napari_mepdiff.gui.workspace import workspace_of
    from tests.gui.conftest import small_data

    monkeypatch.setenv("MEPDIFF_CONFIG", str(tmp_path / "last.json"))
    monkeypatch.setenv("MEPDIFF_RECOVERY", str(tmp_path / "recovery"))
    viewer = make_napari_viewer()
    dock = _load("dock", tmp_path, monkeypatch).DoseDock(viewer)
    assert list(dock.fill()) == [None]
    viewer.window.add_dock_widget(dock, name=dock.title)
    assert dock.text.text() == "No data"
    workspace = workspace_of(viewer)
    workspace.files.take(small_data(), "small.h5")
    qtbot.waitUntil(lambda: dock.text.text() == "81 patterns", timeout=10000)
    qtbot.waitUntil(lambda: not workspace.jobs.running, timeout=30000)
    workspace.close()


def test_the_guide(tmp_path, monkeypatch):
    guide = _load("guide", tmp_path, monkeypatch).Constant()
    x = torch.randn(2, 3, 4, 4)
    out = guide(lambda sample: (0.0, sample, 1.5), x, None, 0.0, 0.5)
    moved = (out.x - x).flatten(1).norm(dim=1)
    assert torch.allclose(moved, torch.tensor(0.5))
    assert out.misfit == 1.5


@needs("grimp")
def test_the_picture_of_the_floors_is_of_today():
    spec = importlib.util.spec_from_file_location("docs_map", ROOT / "docs" / "map.py")
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    picture = drawn.draw(drawn.layers(), drawn.arrows())
    kept = (ROOT / "docs" / "map.svg").read_text()
    shown, kept_shown = (set(re.findall(r'data-arrow="([^"]+)"', t)) for t in (picture, kept))
    assert shown == kept_shown, "run `make map`"
