"""A session without a window: choices and their undo, a run's settings, whose measurement a
run belongs to.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.measurement.preparation import Preparation, Unseen
from napari_mepdiff.measurement.reading import Reading
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.session.begin import begin
from napari_mepdiff.session.recipe import Opening
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.saving import save_run
from napari_mepdiff.session.session import Session
from napari_mepdiff.session.undo import History, Step
from napari_mepdiff.session.work import work

from .small import small_data, small_file


@pytest.fixture
def session(measured):
    session = Session()
    session.take(open_4dstem(measured), str(measured))
    session.change("setup", solver="adam", slices=4)
    session.change_settings("adam", iterations=8, learning_rate=5e-3)
    session.messages = []
    session.message.connect(lambda level, text, _d: session.messages.append((level, text)))
    return session


def begun(session, solver="adam"):
    """A run of the session whose solver has begun, without a thread."""
    run = session.new_run()
    run.control.bind(run.first, solver == "dps")
    run.state = "running"
    session.add_run(run)
    return run


def test_a_run_keeps_its_own_measurement_name_and_truth(session, measured, tmp_path):
    """A run exported after another file was opened would bear that crystal's name and be
    judged by its truth.
    """
    run = session.new_run()
    work(run)
    truth, volume = np.array(run.truth.array), np.array(run.frame.volume)
    other = small_file(tmp_path / "srtio3.h5", seed=5)
    session.take(open_4dstem(other), str(other))
    assert session.measurement_name == "srtio3"
    assert run.measurement_name == "small"
    assert run.file_stem == "small_run_1_Adam"
    np.testing.assert_array_equal(run.truth.array, truth)
    assert not np.array_equal(session.data.truth.array, truth)
    record = run.volume().provenance
    assert record["measurement"] == "small"
    assert record["recipe"]["opening"]["path"] == str(measured)
    assert record["recipe"]["opening"]["fingerprint"] == record["data"]["source"]["hash"]
    saved = save_run(run, tmp_path / f"{run.file_stem}.h5")
    assert saved[0].exists()
    np.testing.assert_array_equal(run.frame.volume, volume)


def test_a_refinement_is_given_the_room_that_its_positions_need(session, measured):
    """The canvas ended a pixel beyond the windows, and the run after sixteen of forty passes."""
    session.change("setup", solver="refine")
    session.change_settings("refine", positions="affine", max_shift=0.7)
    assert session.new_run().recipe.margin == 0.7
    settings = session.settings("refine")
    run = begin(Opening(path=str(measured)), Preparation(), settings, solver="refine")
    assert run.recipe.margin == 0.7
    session.change_settings("refine", positions="fixed")
    assert session.new_run().recipe.margin == 0.0


def test_ended_runs_hold_no_patterns_of_their_own(session):
    """Ten finished runs would hold ten copies of all patterns."""
    run = session.new_run()
    work(run)
    assert run.problem.patterns.nbytes == 0
    assert run.volume().shape == (4, 32, 32)


def test_what_the_solver_changed_stays_when_another_field_is_changed(session):
    """DPS halves its weight after divergence; the next change of any field would send the old
    one back.
    """
    session.change("setup", solver="dps")
    session.change_settings("dps", guidance="decoupled", prior="bundled")
    run = begun(session, "dps")
    taken = []
    session.settings_taken.connect(lambda _r, s: taken.append(s))
    run.control.own(3, "diverged", run.first.model_copy(update={"weight": 0.5}), "weight")
    session.change_settings("dps", fraction=0.5)
    assert run.settings.weight == 0.5
    assert run.settings.fraction == 0.5
    assert session.settings_in_force("dps").weight == 0.5
    assert session.settings("dps").weight == 1.0  # the choice for the next run
    assert taken[-1].weight == 0.5
    session.change_settings("dps", weight=1.0)  # the user insists
    assert run.settings.weight == 1.0


def test_a_refused_change_is_taken_back_and_the_reason_is_said(session):
    """The dock would show a misfit that the run does not have."""
    run = begun(session)
    assert run.first.misfit == "intensity"
    before, undo = session.settings("adam"), session.can_undo
    session.change_settings("adam", misfit="amplitude")
    assert session.settings("adam") == before
    assert session.can_undo == undo
    assert run.control.changes == []
    level, text = session.messages[-1]
    assert level == "warning"
    assert "misfit cannot change now" in text
    session.change_settings("adam", learning_rate=1e-3)
    assert run.settings.learning_rate == 1e-3
    run.state = "done"
    session.change_settings("adam", misfit="amplitude")
    assert session.settings("adam").misfit == "amplitude"


def test_undo_that_a_run_cannot_follow_changes_nothing(session):
    session.change_settings("adam", misfit="amplitude")
    run = begun(session)
    assert session.undo("settings") is None
    assert session.settings("adam").misfit == "amplitude"
    assert "misfit" in session.messages[-1][1]
    run.state = "done"
    assert "misfit" in session.undo("settings")


def test_undo_says_what_it_takes_back_part_by_part(session):
    session.change_settings("adam", learning_rate=1e-3)
    session.change("preparation", flip_y=True)
    assert session.undo("settings") == "learning rate 0.005 → 0.001"
    assert session.choices.preparation.flip_y  # another part stays
    assert session.settings("adam").learning_rate == 5e-3
    assert session.redo("settings") == "learning rate 0.005 → 0.001"
    assert session.undo() == "learning rate 0.005 → 0.001"  # the newest of all
    assert session.undo("preparation") == "flip y off → on"
    assert session.undo("export") is None


def test_a_drag_of_a_slider_is_one_step_of_undo(session):
    """One drag of the weight slider would be thirty steps of undo."""
    session.change("setup", solver="dps")
    with session.one_undo_step():
        for weight in np.linspace(1.1, 3.0, 30):
            session.change_settings("dps", weight=float(weight))
    for weight in np.linspace(2.9, 2.0, 30):
        session.change_settings("dps", merge=True, weight=float(weight))
    session.undo()
    assert session.settings("dps").weight == 3.0
    session.undo()
    assert session.settings("dps").weight == 1.0


def test_changes_merge_only_within_a_second_and_of_the_same_field():
    now = [0.0]
    history = History(clock=lambda: now[0])

    def add(field, before, after, when):
        now[0] = when
        history.add(Step("p", before, after, frozenset({field}), field, 0), merge=True)

    add("a", 0, 1, 0.0)
    add("a", 1, 2, 0.5)
    assert [(s.before, s.after) for s in history.newest()] == [(0, 2)]
    add("a", 2, 3, 2.0)
    add("b", 3, 4, 2.1)
    count = 0
    while history.newest():
        history.moved(history.newest()[0], undone=False)
        count += 1
    assert count == 3


def test_a_preparation_that_does_not_fit_changes_nothing(session):
    before, data = session.choices, session.data
    with pytest.raises(ValueError, match="crop"):
        session.change("preparation", crop=5000)
    assert session.choices == before
    assert session.data is data


def test_a_pass_that_a_preparation_needs_is_left_to_who_asks(measured, monkeypatch):
    """Repairing pixels looked through all patterns in whatever thread it was called."""
    session = Session(wait=False)
    session.take(open_4dstem(measured), str(measured))
    passes, real = [], Reading.summary
    monkeypatch.setattr(Reading, "summary", lambda *a: (passes.append(a), real(*a))[1])
    with pytest.raises(Unseen) as unseen:
        session.change("preparation", repair_pixels=True)
    assert not session.choices.preparation.repair_pixels
    assert not passes
    assert not session.can_undo
    told = []
    unseen.value.look(told.append)
    assert told[-1] == 1
    session.change("preparation", repair_pixels=True)
    assert session.choices.preparation.repair_pixels
    assert len(passes) == 1
    patient = Session()
    patient.take(open_4dstem(measured), str(measured))
    patient.change("preparation", repair_pixels=True)
    assert len(passes) == 2


def test_a_run_from_a_script_is_paused_stepped_and_stopped(session, tmp_path):
    """The runner without a window: what the docks do, a script does."""
    session.change_settings("adam", iterations=100_000)
    runner = Runner(session)
    arrived, ended = [], []
    runner.arrived.connect(lambda _run, frame: arrived.append(frame.step))
    runner.ended.connect(lambda run: ended.append(run.outcome))
    run = runner.start()
    until(runner, lambda: bool(arrived))
    runner.pause()
    until(runner, lambda: run.state == "paused")
    with pytest.raises(ValueError, match="still going on"):
        runner.start()
    before = len(arrived)
    runner.single()  # ends the step that was under way, if one was: changes hold from the next
    until(runner, lambda: len(arrived) > before)
    session.change_settings("adam", learning_rate=1e-3)
    runner.single()
    until(runner, lambda: any(c.settings == {"learning_rate": 1e-3} for c in run.control.changes))
    runner.stop(tmp_path / "partial.h5")
    assert runner.wait(60)
    assert run.state == "stopped"
    assert run.saved[0] == tmp_path / "partial.h5"
    assert session.exported == [str(tmp_path / "partial.h5")]
    assert ended[0].state == "stopped"
    assert run.volume().provenance["outcome"]["state"] == "stopped"
    assert not runner.busy


def test_the_outcome_is_published_after_everything_is_cleaned_up(session, tmp_path, monkeypatch):
    """The window would wait for the worker's cleaning up, or close over a file half written."""
    from napari_mepdiff.session import thread as module

    seen = []
    real = module.save_somewhere

    def slow(run, path):
        time.sleep(0.3)
        seen.append(run.outcome)
        return real(run, path)

    monkeypatch.setattr(module, "save_somewhere", slow)
    runner = Runner(session)
    session.change_settings("adam", iterations=100_000)
    run = runner.start()
    until(runner, lambda: run.frame is not None)
    runner.stop(tmp_path / "partial.h5")
    while runner.poll():
        assert run.going_on
        time.sleep(0.005)
    assert seen == [None]  # not published while the file was written
    assert run.outcome is not None
    assert run.saved[0].exists()


def test_going_back_where_no_states_are_kept_is_said(session):
    session.change_settings("adam", iterations=100_000)
    runner = Runner(session)
    run = runner.start()
    until(runner, lambda: run.frame is not None)
    runner.back(1)
    assert any("keeps no earlier states" in text for _, text in session.messages)
    runner.stop()
    assert runner.wait(60)
    assert all(c.back is None for c in run.control.changes)


def until(runner, condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        runner.poll()
        time.sleep(0.002)


def test_data_without_truth_have_none(measured):
    session = Session()
    session.take(small_data(truth=False), "")
    assert session.new_run().truth is None
    assert isinstance(session.new_run().control, Control)
