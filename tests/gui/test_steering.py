"""What can be turned, and what it does: rows without effect, undo, branches, and a bad end."""

from __future__ import annotations

import numpy as np

from tests.measurement.test_orientation import measured, patterns, specimen  # noqa: F401

from .conftest import small_data


def test_rows_without_effect_are_grey_and_say_why(desk):
    """With whole atoms the schedule could be drawn, was recorded and marked, and did nothing."""
    desk.take()
    dock = desk.guidance
    desk.settings(guidance="atoms", elements=("Sr", "Ti"))
    assert not dock.editor.isEnabled()
    assert not dock.draw.isEnabled()
    for name in ("schedule", "misfit", "fraction"):
        row = dock.form.rows[name]
        assert not row.isEnabled(), name
        assert "atoms" in row.toolTip()
    assert "no effect" in dock.note.text()
    desk.settings(guidance="newton", elements=())
    assert dock.editor.isEnabled()
    assert dock.draw.isEnabled()
    assert dock.form.rows["schedule"].isEnabled()
    assert dock.note.text() == ""
    # elements can always be given while the guidance is automatic: they choose whole atoms
    desk.settings(guidance="auto", elements=())
    first, _more = desk.reconstruct.settings._forms["dps"]
    assert first.rows["elements"].isEnabled()


def test_a_detector_stride_that_a_solver_cannot_take_is_refused_before_the_run(desk):
    """The run began, and failed."""
    desk.take()
    desk.session.change("setup", solver="refine")
    row = desk.reconstruct.settings.of_solver("refine")[1].rows["detector_stride"]
    assert not row.isEnabled()
    assert "refined in its whole window" in row.toolTip()
    desk.session.change_settings("refine", detector_stride=2)  # as a script does
    desk.click(desk.reconstruct.start_button)
    assert desk.session.runs == []
    assert "refined in its whole window" in desk.errors[-1]
    assert "set the detector stride to 1" in desk.errors[-1]
    assert row.isEnabled()  # so that it can be
    desk.session.change_settings("refine", detector_stride=1)
    assert not row.isEnabled()


def test_what_a_run_cannot_take_is_grey_while_it_goes_on(desk):
    """Misfit, seed and memory of a run could be changed, and only the record changed."""
    desk.take()
    desk.session.change("setup", solver="adam")
    desk.session.change_settings("adam", iterations=100_000)
    rows = {
        n: r for form in desk.reconstruct.settings.of_solver("adam") for n, r in form.rows.items()
    }
    assert all(row.isEnabled() for row in rows.values())
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None)
    assert {name for name, row in rows.items() if row.isEnabled()} == run.first.live & rows.keys()
    assert {"misfit", "seed", "memory"} <= rows.keys() - run.first.live
    assert "begin a new one" in rows["misfit"].toolTip()
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)
    assert all(row.isEnabled() for row in rows.values())


def test_a_drag_of_the_slider_is_one_step_of_undo(desk):
    """One drag was thirty steps, each to be taken back by a key press."""
    desk.take()
    dock = desk.guidance
    desk.raise_dock(dock)
    desk.settings(weight=1.0)
    slider = dock.slider
    slider.setSliderDown(True)
    for position in range(slider.value() + 1, slider.value() + 31):
        slider.setSliderPosition(position)
    slider.setSliderDown(False)
    assert desk.session.settings("dps").weight > 2
    desk.click(dock.undo_button)
    assert desk.session.settings("dps").weight == 1.0
    assert "taken back" in desk.messages[-1][1]
    assert "weight" in desk.messages[-1][1]
    desk.click(dock.redo_button)
    assert desk.session.settings("dps").weight > 2
    # keys do what the table says
    bound = {str(key): function for key, function in desk.viewer.keymap.items()}
    bound["Alt+Z"](desk.viewer)
    assert desk.session.settings("dps").weight == 1.0


def test_frames_of_a_branch_that_was_left_can_be_looked_at(desk):
    """Back was said to make a branch; the frames after it were as good as lost."""
    desk.take()
    desk.settings(steps=200)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 15)
    desk.click(desk.reconstruct.pause_button)
    desk.qtbot.wait(200)
    left = len(run.frames) - 1
    kept, step = np.array(run.frames.volume(left)), run.frame.step
    desk.click(desk.guidance.back_ten)
    desk.until(lambda: any(c.back is not None for c in run.control.changes))
    desk.click(desk.reconstruct.start_button)
    desk.until(lambda: len(run.frames) > left + 4)
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)
    scrub = desk.reconstruct.runs.scrub
    scrub.setValue(left)
    np.testing.assert_array_equal(desk.workspace.run_layers.layer_of(run).data, kept)
    text = desk.reconstruct.runs.scrub_text.text()
    assert f"step {step}" in text
    assert "branch" in text
    assert "back to step" in desk.guidance.changes.item(0).text()


def test_a_run_that_does_not_explain_the_data_is_not_simply_done(desk):
    """It ended at a misfit of 21883 and said 'done'."""
    from dataclasses import replace

    data = small_data()
    shifted = np.roll(np.asarray(data.data), 10, axis=-1)  # the beam beside the detector's middle
    desk.take(replace(data, data=shifted))
    desk.session.change("setup", solver="adam")
    desk.session.change_settings("adam", iterations=2)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on)
    assert run.state == "done", run.error
    assert run.frame.loss > 3
    assert any(level == "warning" and "shot noise" in text for level, text, _ in desk.messages)
    assert "Likely causes" in desk.reconstruct.doubt.text()
    assert desk.reconstruct.doubt.isVisibleTo(desk.reconstruct)
    # and one that does says nothing
    desk.take(data, "good.h5")
    desk.session.change_settings("adam", iterations=40, learning_rate=0.02)
    desk.click(desk.reconstruct.start_button)
    good = desk.session.runs[-1]
    desk.until(lambda: not good.going_on)
    assert 0.5 < good.frame.loss < 3
    assert not desk.reconstruct.doubt.isVisibleTo(desk.reconstruct)


def test_the_estimated_rotation_is_taken_over_with_its_sign(desk, specimen):  # noqa: F811
    """*Use* turned the scan the wrong way: the misfit rose from 1.2 to 8.4."""
    angle = 20.0
    desk.take(measured(patterns(specimen, angle)))
    dock = desk.data
    desk.raise_dock(dock)
    desk.click(dock.orientation.estimate_button)
    desk.until(lambda: dock.orientation.found is not None)
    found = dock.orientation.found.angle
    desk.click(dock.orientation.use_rotation)
    desk.idle()
    used = desk.session.data.calibration.rotation
    assert abs((used - angle + 90) % 180 - 90) < 3  # θ and θ + 180° look the same to it
    assert desk.session.choices.preparation.rotation == found


def test_a_stop_says_what_it_waits_for(desk, monkeypatch):
    """Stop in a wide field took 145 s without a word."""
    import threading

    desk.take()
    desk.settings(steps=5000)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3)
    held, inside = threading.Event(), threading.Event()
    take = run.control.take

    def slow(*args):
        run.control.doing = "moving atoms"
        inside.set()
        held.wait(30)
        return take(*args)

    monkeypatch.setattr(run.control, "take", slow)
    desk.until(inside.is_set)
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: "1 s" in desk.reconstruct.state_text.text())
    assert "moving atoms" in desk.reconstruct.state_text.text()
    assert "the volume so far is kept" in desk.reconstruct.state_text.text()
    held.set()
    desk.until(lambda: not run.going_on)


def test_a_run_that_does_not_stop_can_be_left(desk, monkeypatch):
    """A long last step kept the user from the next run, with nothing to press."""
    desk.take()
    keys = {str(key): function for key, function in desk.viewer.keymap.items()}
    stop = desk.reconstruct.stop_button
    _leave(desk, monkeypatch, lambda: desk.click(stop))
    _leave(desk, monkeypatch, lambda: keys["Alt+S"](desk.viewer), slip=True)
    assert not desk.errors


def _leave(desk, monkeypatch, press, slip=False):
    import threading

    desk.messages.clear()
    desk.settings(steps=5000)
    dock = desk.reconstruct
    desk.click(dock.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3)
    held, inside = threading.Event(), threading.Event()
    append = run.append

    def slow(frame):
        inside.set()
        held.wait(60)
        append(frame)

    monkeypatch.setattr(run, "append", slow)
    desk.until(inside.is_set)
    press()
    if slip:
        press()  # at once
    assert run.state == "stopping"
    assert not dock.stop_button.isEnabled()  # a double click does not leave it
    desk.until(dock.stop_button.isEnabled)
    assert dock.stop_button.text() == "Leave it"
    kept = run.frame
    press()
    assert run.state == "stopped"
    assert run.outcome.steps == kept.step
    assert dock.stop_button.text() == "Stop"
    assert "let go" in desk.messages[-1][1]
    second = desk.run(steps=5)  # the next one goes while that step still does
    assert second.state == "done"
    held.set()
    desk.until(lambda: any("its result was dropped" in text for _, text, _ in desk.messages))
    assert run.frame is kept
    assert run.state == run.outcome.state == run.record().outcome.state == "stopped"
