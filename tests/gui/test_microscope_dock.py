"""The Microscope dock, as a user would click through it, in a real viewer."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.gui.layer_data import KEY
from napari_mepdiff.microscope.files import load_microscope
from napari_mepdiff.microscope.modes import mode_pictures
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.session import microscope_look

from .conftest import small_data

TOLD = 80.0  # Å; the true overfocus is 60 Å
PASSES = {
    "iterations": 4,
    "probe_start": 3,
    "position_start": 1,
    "batch": 8,
    "modes": 2,
    "volume_step": 4.0,
}


def wrong(name="small.h5"):
    """The small measurement, its defocus told wrong."""
    return replace(small_data(), optics=Optics(semi_angle=20, overfocus=TOLD, C30=5000)), name


def refine(desk, **fields):
    """A run of `refine` from Start to its end."""
    desk.session.change("setup", solver="refine")
    desk.session.change_settings("refine", **{**PASSES, **fields})
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on, 60)
    assert run.state == "done", run.error
    return run


def opened(desk):
    """The dock in front, over the measurement; no fixture, which would keep it alive."""
    desk.take(*wrong())
    return desk.microscope()


def reason(button):
    """Why a button cannot act, as its tip says; empty where it can."""
    first = button.toolTip().split("\n")[0]
    assert first.startswith("Not now: ") is not button.isEnabled()
    return "" if button.isEnabled() else first


def test_buttons_say_why_they_cannot_act_and_boxes_fix_blocks(desk):
    dock = desk.microscope()
    values = dock.values
    for button in (values.take_button, values.use_button, values.save_button, values.load_button):
        assert "no 4D-STEM data are open" in reason(button)
    desk.take(*wrong())
    desk.microscope()
    assert values.table.text("C10", 1) == "80"
    assert values.table.text("C10", 3) == ""
    assert "nothing is refined yet" in reason(values.use_button)
    assert "nothing is refined yet" in reason(values.save_button)
    assert "nothing is refined yet" in reason(dock.positions.show_button)
    assert "no value is ticked" in reason(values.take_button)
    assert not reason(values.load_button)
    # blocks are fixed and freed by their boxes
    values.table.free("positions", False)
    values.table.free("tilt", False)
    settings = desk.session.settings("refine")
    assert (settings.positions, settings.tilt, settings.probe) == ("fixed", False, "free")
    desk.workspace.do_undo()
    assert desk.session.settings("refine").tilt
    desk.microscope()


def test_refined_values_are_shown_and_taken_over(desk):
    dock = opened(desk)
    values, table = dock.values, dock.values.table
    run = refine(desk)
    desk.microscope()
    optics = run.frame.info.optics
    assert values.sources.currentText() == run.name
    assert table.text("C10", 1) == "80"
    shown = float(table.text("C10", 3).split("±")[0])
    assert shown == pytest.approx(optics.overfocus, rel=1e-3)
    assert shown < TOLD
    table.tick("C10", "refined")
    assert table.chosen() == {"C10": "refined"}
    before = desk.session.choices.preparation
    desk.click(values.take_button)
    assert desk.session.choices.preparation.overfocus == optics.overfocus
    assert desk.session.data.optics.overfocus == optics.overfocus
    assert table.chosen() == {}
    desk.idle()
    desk.until(lambda: table.text("C10", 1) != "80")
    desk.idle()
    assert float(table.text("C10", 1)) == pytest.approx(optics.overfocus, rel=1e-3)
    desk.workspace.do_undo()
    assert desk.session.choices.preparation == before
    desk.until(lambda: table.text("C10", 1) == "80")
    desk.microscope()
    assert not desk.errors


def test_the_next_run_begins_with_what_was_refined(desk, tmp_path):
    dock = opened(desk)
    values = dock.values
    desk.session.change("export", folder=str(tmp_path))
    run = refine(desk)
    desk.microscope()
    desk.click(values.use_button)
    desk.until(lambda: bool(desk.session.choices.setup.microscope))
    path = desk.session.choices.setup.microscope
    state = load_microscope(path)
    np.testing.assert_array_equal(state.probe, run.microscope().probe)
    np.testing.assert_array_equal(state.positions, run.microscope().positions)
    desk.until(lambda: not values.use_button.isEnabled())
    assert "begins with it already" in reason(values.use_button)
    assert run.file_stem in values.next.text()
    again = refine(desk, iterations=1)
    assert again.recipe.microscope.path == path
    desk.microscope()
    assert values.sources.currentText() == again.name  # the newest
    desk.click(values.forget_button)
    assert desk.session.choices.setup.microscope == ""
    desk.workspace.do_undo()
    assert desk.session.choices.setup.microscope == path
    desk.microscope()
    assert not desk.errors


def test_what_is_saved_is_loaded_again(desk, tmp_path):
    dock = opened(desk)
    from napari_mepdiff.gui.docks.microscope_values import KINDS

    values = dock.values
    run = refine(desk, iterations=2)
    desk.microscope()
    for number, kind in enumerate(KINDS):
        path = tmp_path / f"saved{number}.h5"
        values.ask_save = lambda _title, path=path, kind=kind: (str(path), kind)
        values.ask_load = lambda path=path: str(path)
        desk.click(values.save_button)
        desk.until(path.exists)
        desk.idle()
        desk.click(values.load_button)
        desk.until(lambda path=path: path.name in values.sources.currentText())
        desk.idle()
        found = desk.workspace.microscopes.found()
        np.testing.assert_allclose(found.state.probe, run.microscope().probe, atol=1e-3)
        assert "a file has none" in dock.convergence.said.text()
        values.sources.setCurrentIndex(0)
        values.sources.activated.emit(0)
        desk.microscope()
        assert desk.workspace.microscopes.run is run
    assert number == 2
    assert not desk.errors
    path.write_bytes(b"no such thing")
    desk.click(values.load_button)
    desk.until(lambda: bool(desk.errors))
    assert path.name in desk.errors[-1]


def test_probe_curves_and_positions_are_those_of_the_run(desk):
    dock = opened(desk)
    run = refine(desk)
    desk.microscope()
    state, probe = run.microscope(), dock.probe
    assert probe.mode.maximum() == 2
    first = mode_pictures(state, 0)
    np.testing.assert_allclose(probe.real.image.image, first.real)
    width = probe.real.image.mapRectToView(probe.real.image.boundingRect()).width()
    assert width == pytest.approx(first.real.shape[1] * state.pixel_size[1])
    probe.mode.setValue(2)
    desk.microscope()
    np.testing.assert_allclose(probe.real.image.image, mode_pictures(state, 1).real)
    assert "of 2" in probe.share.text()
    angle, chi = probe.chi.lines[1].getData()
    assert angle[-1] == pytest.approx(run.frame.info.optics.semi_angle)
    assert chi[-1] != probe.chi.lines[0].getData()[1][-1]
    curves = dock.convergence.curves
    for line, name in ((curves.parts["C10"], "C10"), (curves.parts["moved"], "moved")):
        steps, values = line.getData()
        np.testing.assert_array_equal(steps, [1, 2, 3, 4])
        np.testing.assert_allclose(values, [r[name] for r in run.frames.records])
    # positions are arrows over the virtual image
    button = dock.positions.show_button
    volume = desk.viewer.layers[run.name]
    assert volume.visible
    desk.click(button)
    layer = desk.workspace.measurement_layers.moves_layer()
    told, refined = desk.session.data.scan_positions(), run.microscope().positions
    factor = layer.metadata[KEY]["exaggeration"]
    assert factor > 1
    assert layer.name.endswith(f"× {factor:g}")
    assert f"{factor:g} times longer" in dock.positions.said.text()
    np.testing.assert_allclose(layer.data[:, 0], told, rtol=1e-6)
    np.testing.assert_allclose(layer.data[:, 1], factor * (refined - told), atol=1e-5)
    assert [str(u) for u in layer.units] == ["angstrom"] * 2
    assert desk.viewer.layers["virtual image"].visible
    assert not volume.visible
    desk.click(button)
    assert desk.workspace.measurement_layers.moves_layer() is None
    assert volume.visible
    desk.microscope()


def test_it_follows_a_run_in_the_background(desk, monkeypatch):
    """Pictures are made in a worker's thread; while the run goes on, values are not taken over."""
    dock = opened(desk)
    threads, real = set(), microscope_look.mode_pictures

    def spied(*arguments):
        threads.add(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(microscope_look, "mode_pictures", spied)
    desk.session.change("setup", solver="refine")
    desk.session.change_settings("refine", **{**PASSES, "iterations": 5000, "probe_start": 9000})
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.raise_dock(dock)
    desk.until(lambda: _there(dock))
    steps = len(dock.convergence.curves.fitted.getData()[0])
    desk.until(lambda: len(dock.convergence.curves.fitted.getData()[0]) > steps)
    dock.values.table.tick("C10", "refined")
    desk.until(lambda: not dock.values.take_button.isEnabled())
    assert "still going on: stop it first" in reason(dock.values.take_button)
    assert dock.values.table._held
    dock.values.take_over()
    assert "stop it first" in desk.errors[-1]
    assert desk.session.choices.preparation.overfocus is None
    desk.workspace.do_stop()
    desk.until(lambda: not run.going_on, 60)
    desk.microscope()
    assert threads
    assert threading.main_thread() not in threads


def _there(dock):
    try:
        return dock.values.table.text("C10", 3) != ""
    except KeyError:
        return False


def test_estimates_come_with_the_click_of_a_button(desk):
    dock = opened(desk)
    desk.click(dock.values.estimate_button)
    desk.until(lambda: desk.workspace.microscopes.estimated is not None, 60)
    desk.idle()
    found = desk.workspace.microscopes.estimated["semi-angle"]
    table = dock.values.table
    desk.until(lambda: table.text("semi-angle", 2) != "")
    assert float(table.text("semi-angle", 2).split("±")[0]) == pytest.approx(found.value, abs=0.05)
    table.tick("semi-angle", "estimated")
    desk.click(dock.values.take_button)
    assert desk.session.choices.preparation.semi_angle == found.value
    desk.microscope()
    assert desk.workspace.microscopes.estimated is None  # of other patterns than these
