"""Preview, estimate, single steps, and checkpoints on a full disk."""

from __future__ import annotations

import threading
import time

import pytest

from napari_mepdiff.reconstruction import registry
from napari_mepdiff.reconstruction.estimate import clock, estimate
from napari_mepdiff.reconstruction.preview import preview
from napari_mepdiff.reconstruction.registry import SOLVERS, solve
from napari_mepdiff.reconstruction.stream import Control

from .small import crystal_problem


@pytest.mark.parametrize("name", list(SOLVERS))
def test_every_solver_has_a_preview(name):
    fields = {"elements": ("Sr",)} if "elements" in SOLVERS[name].settings_type().model_fields else {}
    settings = SOLVERS[name].default(**fields)
    less = preview(name, settings)
    assert type(less) is type(settings)
    assert less.detector_stride == 2
    assert less.seed == settings.seed


def test_a_preview_is_much_less_work_and_runs():
    settings = preview("adam", SOLVERS["adam"].default())
    problem, _ = crystal_problem()
    frames = list(solve(problem, settings))
    assert frames[-1].step == settings.iterations == 10


@pytest.mark.parametrize(("name", "fields"), [("adam", {"iterations": 40}), ("lbfgs", {"batch": None, "learning_rates": (1.0,)})])
def test_estimates_have_the_right_size(name, fields):
    problem, _ = crystal_problem(scan=16)
    settings = SOLVERS[name].default(**fields)
    guess = estimate(problem, settings)
    start = time.perf_counter()
    for _frame in solve(problem, settings):
        pass
    taken = time.perf_counter() - start
    assert taken / 5 < guess.seconds < taken * 5
    assert 1e5 < guess.bytes < 4e9
    assert "on cpu" in str(guess)


def test_clock_speaks_as_people_do():
    assert [clock(s) for s in (5, 130, 7500)] == ["5 s", "2 min 10 s", "2 h 05 min"]


def test_single_steps():
    problem, _ = crystal_problem()
    control, steps = Control(), []
    control.pause()

    def work() -> None:
        for frame in solve(problem, SOLVERS["adam"].default(iterations=50), control):
            steps.append(frame.step)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.4)
    assert steps == []
    for n in (1, 2, 3):
        control.single()
        deadline = time.monotonic() + 10
        while len(steps) < n and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        assert steps == list(range(1, n + 1))
    control.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry, "save_checkpoint", full)
    problem, _ = crystal_problem()
    control = Control()
    frames = list(solve(problem, SOLVERS["adam"].default(iterations=4), control, checkpoint=tmp_path / "c", every=0))
    assert frames[-1].step == 4
    assert len(control.notes) == 1
    assert "No space left" in control.notes[0]
