"""One button from bare patterns to a volume, in a real viewer."""

from __future__ import annotations

import threading

import numpy as np
from qtpy.QtCore import Qt

from napari_mepdiff.session import stages
from tests.reconstruction.small import crystal_problem

from .conftest import small_data
from .test_from_npy import typed

SCAN, STEP = 9, 6.4 / 9
PASSES = {"iterations": 3, "probe_start": 2, "position_start": 1, "batch": 8, "modes": 1}


def bare(desk, tmp_path):
    """Patterns without a word about them, opened; nothing is told yet but how the scan was laid."""
    problem, _ = crystal_problem(boundary="extended", scan=SCAN)
    path = tmp_path / "patterns.npy"
    np.save(path, np.asarray(problem.patterns))
    desk.workspace.files.open(str(path))
    desk.until(lambda: bool(desk.errors))
    desk.messages.clear()
    desk.data.scan_shape.setText(f"{SCAN} × {SCAN}")
    desk.qtbot.keyClick(desk.data.scan_shape, Qt.Key.Key_Return)
    desk.until(lambda: desk.session.data is not None and desk.session.findings is not None)
    desk.idle()
    desk.session.change("export", folder=str(tmp_path))
    desk.settings(steps=6, evaluations=5)
    desk.session.change_settings("refine", **PASSES)


def test_one_click_from_bare_patterns_to_a_volume(desk, tmp_path, monkeypatch):
    bare(desk, tmp_path)
    part, chain = desk.reconstruct.automatic, desk.workspace.chain
    assert not part.button.isEnabled()
    assert "not told: beam energy, scan step, semi-angle" in part.button.toolTip()
    rows = desk.data.calibration.form.rows
    for name, text in (("energy", "300"), ("semi_angle", "20"), ("scan_step_y", str(STEP))):
        typed(desk, rows[name], text)
    desk.idle()
    told = desk.session.choices.preparation
    threads, seen = set(), []
    for name in ("look_at", "make_ready"):
        real = getattr(stages, name)

        def spied(*arguments, real=real):
            threads.add(threading.current_thread())
            return real(*arguments)

        monkeypatch.setattr(f"napari_mepdiff.session.chain.{name}", spied)
    chain.changed.connect(lambda: seen.append(chain.line))
    desk.raise_dock(desk.reconstruct)
    desk.click(part.button)
    assert not part.button.isEnabled()
    assert not desk.reconstruct.start_button.isEnabled()
    desk.until(lambda: not chain.going_on, 60)
    assert chain.state == "done", chain.reason
    chain.changed.disconnect()
    for line in ("step 1 of 3: what", "step 2 of 3: volume and microscope", "step 3 of 3: with"):
        assert any(said.startswith(line) for said in seen)
    assert threading.main_thread() not in threads
    assert len(threads) == 3
    # what was told stays, what the patterns say is there, and goes in one step
    session, rows = desk.session, desk.data.calibration.form.rows
    after = session.choices.preparation
    assert (after.energy, after.semi_angle) == (300, 20)
    assert after.pixel_mrad is not None
    assert rows["pixel_mrad"].text() != ""
    assert "detector pixel" in part.said.text()
    desk.until(lambda: part.said.height() >= part.said.heightForWidth(part.said.width()))
    refined, run = session.runs
    assert run.recipe.microscope.path == str(tmp_path / f"{refined.file_stem}_microscope.h5")
    layer = desk.viewer.layers[run.name]
    np.testing.assert_array_equal(layer.data, run.frame.volume)
    assert layer.data.shape[0] == 4  # as chosen: of the fixture
    assert session.settings("dps").elements == ()
    desk.workspace.do_undo()
    assert session.choices.preparation == told
    assert not desk.errors


def told(desk, tmp_path):
    """The bare patterns, with what no pattern tells; the Reconstruct dock in front."""
    bare(desk, tmp_path)
    desk.session.change(
        "preparation", energy=300.0, semi_angle=20.0, scan_step_y=STEP, scan_step_x=STEP
    )
    desk.idle()
    desk.raise_dock(desk.reconstruct)
    return desk.reconstruct.automatic


def test_it_says_beforehand_what_it_will_take(desk, tmp_path):
    part = told(desk, tmp_path)
    desk.until(lambda: part.total.text() != "", 60)
    assert part.total.text().startswith("3 steps, roughly ")
    lines = part.button.toolTip().split("\n")
    (cost,) = [line for line in lines if line.startswith("2. volume and microscope together: ")]
    assert cost.endswith("MB on cpu")
    desk.session.change_settings("refine", iterations=4000)
    assert part.total.text() == ""  # of other settings than these
    desk.until(lambda: part.total.text() != "", 60)
    desk.session.change_settings("refine", iterations=3)
    part.rounds.setValue(2)
    assert "4. the microscope again, from that volume" in part.button.toolTip()
    desk.until(lambda: part.total.text().startswith("5 steps, roughly "), 60)
    desk.idle()


def test_stop_ends_all_steps_and_nothing_else_begins_meanwhile(desk, tmp_path):
    part, dock, chain = told(desk, tmp_path), desk.reconstruct, desk.workspace.chain
    desk.session.change_settings("refine", iterations=5000)
    desk.click(part.button)
    assert desk.workspace.start() is None  # as by its key
    assert "step 1 of 3: what the patterns say goes on" in desk.errors.pop()
    desk.click(dock.stop_button)
    assert chain.state == "stopped"
    assert not desk.session.runs
    desk.until(lambda: part.button.isEnabled() and dock.start_button.isEnabled())
    desk.idle()
    desk.click(part.button)
    desk.until(lambda: bool(desk.session.runs) and desk.session.runs[0].frame is not None, 60)
    assert "▸ 2. volume and microscope together (run 1)" in part.said.text()
    assert "goes on" in part.button.toolTip()
    desk.click(dock.stop_button)
    desk.until(lambda: not chain.going_on, 60)
    assert "■ 2. volume and microscope together (run 1)" in part.said.text()
    assert [run.state for run in desk.session.runs] == ["stopped"]
    desk.idle()
    desk.take()
    assert part.said.text() == ""  # it was of another measurement


def test_what_becomes_known_of_an_ended_run_leaves_the_one_that_goes_on_in_sight(desk):
    desk.take(small_data())
    ended = desk.run(steps=3, evaluations=5)
    desk.settings(steps=5000)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None, 60)
    desk.session.run_changed.emit(ended)  # as when the cause of its misfit has been found
    assert desk.reconstruct.runs.selected() is run
    assert run.name in desk.reconstruct.state_text.text()
    desk.workspace.do_stop()
    desk.until(lambda: not run.going_on, 60)
    desk.idle()
