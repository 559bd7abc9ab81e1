"""Preview, estimate, single steps, and checkpoints on a full disk."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.reconstruction import checkpoint
from napari_mepdiff.reconstruction import estimate as estimate_module
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.estimate import PROBES, clock, estimate
from napari_mepdiff.reconstruction.preview import preview
from napari_mepdiff.reconstruction.registry import SOLVERS, solve, solver_of

from .small import crystal_problem


@pytest.fixture(autouse=True)
def _nothing_measured():
    estimate_module._speeds.clear()


@pytest.mark.parametrize("name", list(SOLVERS))
def test_every_solver_has_a_preview(name):
    fields = (
        {"elements": ("Sr",)} if "elements" in SOLVERS[name].settings_type().model_fields else {}
    )
    settings = SOLVERS[name].default(**fields)
    less = preview(settings)
    assert type(less) is type(settings)
    solver_of(less).refuse(less, None)  # PtyRAD's on our own engine, which has a stride
    assert less.detector_stride == (1 if name == "refine" else 2)
    assert less.seed == settings.seed


def test_a_preview_is_much_less_work_and_runs():
    settings = preview(SOLVERS["adam"].default())
    problem, _ = crystal_problem()
    frames = list(solve(problem, settings))
    assert frames[-1].step == settings.iterations == 10


@pytest.mark.parametrize(
    ("name", "fields"),
    [("adam", {"iterations": 40}), ("lbfgs", {"batch": None, "learning_rates": (1.0,)})],
)
def test_an_estimate_is_the_work_that_the_run_then_does(name, fields, monkeypatch):
    """In gradients of one position, each said to take 10 ms: clocks differ from day to day."""
    problem, _ = crystal_problem(scan=16)
    settings = SOLVERS[name].default(**fields)
    positions = 0
    gradients = Likelihood.gradients

    def counted(self, volume, batch=None, **options):
        nonlocal positions
        positions += self.count if batch is None else len(batch)
        return gradients(self, volume, batch, **options)

    monkeypatch.setattr(Likelihood, "gradients", counted)
    monkeypatch.setattr(estimate_module, "_time", lambda work, device: 0.01 * PROBES)
    guess = estimate(problem, settings)
    positions = 0
    for _frame in solve(problem, settings):
        pass
    assert guess.seconds == pytest.approx(0.01 * positions, rel=0.5)
    assert 1e5 < guess.bytes < 4e9
    assert "on cpu" in str(guess)


def test_an_estimate_measures_only_what_a_change_concerns(monkeypatch):
    """Each change of a setting in the dock used to go through the physics, and the data, anew."""
    problem, _ = crystal_problem(scan=6)
    timed = []
    monkeypatch.setattr(estimate_module, "_time", lambda work, device: timed.append(work()) or 0.01)
    first = estimate(problem, SOLVERS["adam"].default(iterations=10))
    before = len(timed)
    assert before
    again = estimate(replace(problem), SOLVERS["adam"].default(iterations=20, seed=3))
    assert again.seconds == pytest.approx(2 * first.seconds)
    assert len(timed) == before
    estimate(problem, SOLVERS["adam"].default(misfit="amplitude"))
    assert len(timed) > before


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

    monkeypatch.setattr(checkpoint, "save_checkpoint", full)
    problem, _ = crystal_problem()
    control = Control()
    frames = list(
        solve(
            problem,
            SOLVERS["adam"].default(iterations=4),
            control,
            checkpoint=tmp_path / "c",
            every=0,
        )
    )
    assert frames[-1].step == 4
    assert len(control.notes) == 1
    assert "No space left" in control.notes[0]
