"""What a solver says it can do, it does; what it cannot do is refused aloud and never recorded."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from napari_mepdiff.base.extras import available
from napari_mepdiff.reconstruction.change import Change
from napari_mepdiff.reconstruction.control import Control, Refused
from napari_mepdiff.reconstruction.registry import SOLVERS, solve
from napari_mepdiff.reconstruction.script import Script
from napari_mepdiff.reconstruction.settings import SolverSettings

from .small import crystal_problem


@dataclass(frozen=True)
class Case:
    """A short run of a solver, and for each live field a value that must tell."""

    solver: str
    fields: dict[str, Any]
    tell: dict[str, Any] = field(default_factory=dict)
    at: int = 2  # step after which the change is made

    def settings(self) -> SolverSettings:
        return SOLVERS[self.solver].default(**self.fields)


DESCENT = {"batch": 5, "l1": 3.0, "depth_smoothing": 50.0, "non_negative": True}
CASES = {
    "adam": Case(
        "adam",
        {"iterations": 4, "learning_rate": 5e-3},
        {**DESCENT, "iterations": 5, "learning_rate": 1e-3},
    ),
    "lbfgs": Case(
        "lbfgs",
        {"iterations": 3, "evaluations": 4, "learning_rates": (0.5,)},
        {k: v for k, v in DESCENT.items() if k != "non_negative"},
        at=1,
    ),
    "ptyrad-adam": Case(
        "ptyrad-adam",
        {"iterations": 3, "learning_rate": 5e-3},
        {**DESCENT, "iterations": 4, "learning_rate": 1e-3},
    ),
    "ptyrad-lbfgs": Case(
        "ptyrad-lbfgs",
        {"iterations": 2, "evaluations": 3, "learning_rates": (0.5,)},
        {k: v for k, v in DESCENT.items() if k != "non_negative"},
        at=1,
    ),
    # light atoms, so that several would stand in one place, and a penalty that makes steps fail
    "atomic": Case(
        "atomic",
        {"iterations": 12, "elements": ("C",), "held_out": 0.2, "penalty": 0.5},
        {"iterations": 14, "penalty": 5.0, "epsilon": 1e-3, "exclusion": 3000.0, "patience": 1},
        at=3,
    ),
    "refine": Case(
        "refine",
        # no positions held out: on so small a scan they would have what moves put back
        {"iterations": 4, "probe_start": 1, "position_start": 1, "held_out": 0.0},
        {
            "iterations": 5,
            "batch": 5,
            "volume_step": 1.0,
            "probe_step": 2.0,
            "position_step": 50.0,
            "max_shift": 1e-4,
            "probe_start": 9,
            "position_start": 9,
            "depth_smoothing": 0.5,
            "inner_potential": 1.0,
            "non_negative": False,
        },
    ),
}
ORDINARY = [name for name in SOLVERS if name != "dps"]  # whose settings hang together: test_dps


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=5)[0]


def play(problem, case, control=None, act=None, start=None):
    """All volumes of a run; `act(control)` is called after step `case.at`."""
    control, volumes = control or Control(), []
    for frame in solve(problem, case.settings(), control, start=start):
        volumes.append(frame.volume)
        if act is not None and frame.step == case.at:
            act(control)
    return volumes, control


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def needs(name):
    if name.startswith("ptyrad") and not available("ptyrad"):
        pytest.skip("PtyRAD is not installed")


def another(settings, name):
    """Some other value that the field may have."""
    value = getattr(settings, name)
    options: list[Any] = [
        *({} if not isinstance(value, bool) else {not value}),
        *([value + 1, value / 2, value * 2, 0.25] if isinstance(value, (int, float)) else []),
        *(
            "poisson",
            "amplitude",
            "own",
            "ptyrad",
            "fixed",
            "held",
            ("Zn",),
            (),
            (0.3, 0.1),
            7,
            None,
            2,
        ),
    ]
    for option in options:
        try:
            new = type(settings).model_validate({**settings.model_dump(), name: option})
        except ValueError:
            continue
        if getattr(new, name) != value:
            return getattr(new, name)
    raise AssertionError(f"no other value of {name}")


def test_every_solver_has_its_case():
    assert sorted(CASES) == sorted(ORDINARY)
    for name in ORDINARY:
        settings = CASES[name].settings()
        assert set(CASES[name].tell) == settings.changeable(), name


@pytest.mark.parametrize("name", ORDINARY)
def test_a_change_that_is_declared_changes_the_volume_and_is_recorded(name, problem):
    """Changes of fields that a solver does not look at used to be recorded as made."""
    needs(name)
    case = CASES[name]
    plain, _ = play(problem, case)
    for live, value in case.tell.items():
        changed, control = play(problem, case, act=lambda c, k=live, v=value: c.change(**{k: v}))
        assert not same(plain, changed), f"{live} has no effect"
        assert same(plain[: case.at], changed[: case.at])
        assert control.changes == [Change(case.at, {live: value})]
        again, script = play(problem, case, Script(control.changes))
        assert same(again, changed)
        assert script.changes == control.changes


@pytest.mark.parametrize("name", ORDINARY)
def test_every_other_change_is_refused_and_changes_nothing(name, problem):
    needs(name)
    case = CASES[name]
    settings = case.settings()
    plain, _ = play(problem, case)
    others = set(type(settings).model_fields) - settings.changeable() - {"solver"}

    def act(control):
        for fixed in sorted(others):
            with pytest.raises(Refused, match=f"{fixed} cannot change now"):
                control.change(**{fixed: another(settings, fixed)})

    after, control = play(problem, case, act=act)
    assert same(plain, after)
    assert control.changes == []
    assert control.settings == settings
    with pytest.raises(Refused, match="seed"):  # a script is refused before the first step
        play(problem, case, Script([Change(case.at, {"seed": 5})]))


@pytest.mark.parametrize("name", ORDINARY)
def test_a_run_ends_where_it_says(name, problem):
    """Fewer iterations asked for in mid-run used to end at "step 6 of 3"."""
    needs(name)
    case = CASES[name]
    frames = list(solve(problem, case.settings()))
    assert frames[-1].step <= frames[-1].total  # fewer only where patience ends it
    assert name == "atomic" or frames[-1].step == frames[-1].total
    if "iterations" in case.settings().changeable():
        control, seen = Control(), []
        for frame in solve(problem, case.settings(), control):
            seen.append(frame)
            if frame.step == 2:
                control.change(iterations=1)
        assert [f.step for f in seen] == [1, 2]


@pytest.mark.parametrize("name", ORDINARY)
def test_going_back_is_refused_where_no_states_are_kept(name, problem):
    """A paused Adam run that was asked to go back used to run on while it said paused."""
    needs(name)
    assert not SOLVERS[name].can_go_back
    case = CASES[name]
    control, steps = Control(), []
    control.back(1)  # before it is known which solver will run

    def work():
        for frame in solve(problem, case.settings(), control):
            steps.append(frame.step)
            control.pause()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not steps and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(Refused, match="keeps no earlier states"):
        control.back(0)
    time.sleep(0.3)
    assert len(steps) == 1
    assert control.paused
    assert control.changes == []
    control.stop()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(Refused, match="keeps no earlier states"):
        play(problem, case, Script([Change(1, back=0)]))


@pytest.mark.parametrize("name", ORDINARY)
def test_a_start_is_used_or_refused(name, problem):
    needs(name)
    case = CASES[name]
    start = crystal_problem(scan=5)[1]
    if SOLVERS[name].takes_start:
        assert not same(play(problem, case)[0], play(problem, case, start=start)[0])
    else:
        with pytest.raises(ValueError, match="cannot begin from a given volume"):
            play(problem, case, start=start)


@pytest.mark.parametrize("name", ORDINARY)
def test_the_detector_stride_is_used_or_refused(name, problem):
    needs(name)
    case = CASES[name]
    coarse = Case(name, {**case.fields, "detector_stride": 2})
    if not SOLVERS[name].every_pixel:
        assert not same(play(problem, case)[0], play(problem, coarse)[0])
    else:
        why = "refined in its whole window" if name == "refine" else "PtyRAD's engine compares all"
        with pytest.raises(ValueError, match=rf"{why}.*; set the detector stride to 1"):
            play(problem, coarse)


def test_a_setting_that_has_no_effect_is_refused(problem):
    """Exclusion counts atoms: without elements it does nothing, and must not be recorded."""
    control = Control()
    settings = SOLVERS["atomic"].default(iterations=3)
    for frame in solve(problem, settings, control):
        if frame.step == 1:
            with pytest.raises(Refused, match="where the elements are given"):
                control.change(exclusion=7.0)
    assert control.changes == []
