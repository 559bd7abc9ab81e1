"""Every dock, as a user would click through it, in a real viewer."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mepdiff.gui.layer_data import KEY
from napari_mepdiff.reconstruction.registry import SOLVERS

from .conftest import small_data


def test_docks_open_as_tabs_fit_a_small_laptop_and_follow_the_theme(desk):
    from qtpy.QtWidgets import QApplication, QScrollArea

    desk.take()
    for name, dock in desk.docks.items():
        desk.raise_dock(dock)
        QApplication.processEvents()
        area = dock.findChild(QScrollArea)
        assert area.widget().minimumSizeHint().width() <= area.viewport().width(), (
            f"{name} is cut off at the right"
        )
        assert dock.minimumSizeHint().height() < 500
        assert dock.minimumWidth() <= 360
    assert desk.viewer.window.geometry()[2] <= 1366
    # themes reach the plots
    for theme in ("light", "dark"):
        desk.viewer.theme = theme
        background = desk.reconstruct.curves.misfit.backgroundBrush().color()
        assert (background.lightness() > 128) == (theme == "light")


def test_data_dock_shows_and_calibrates(desk):
    desk.take(small_data())
    dock = desk.data
    assert "9 × 9" in dock.about.text()
    assert "nothing wrong" in dock.findings.text()
    assert dock.calibration.form.rows["energy"].placeholderText() == "300"
    layer = desk.viewer.layers["virtual image"]
    assert [str(u) for u in layer.units] == ["angstrom", "angstrom"]
    np.testing.assert_allclose(
        layer.affine.affine_matrix[:2, :2], np.diag([6.4 / 9, 6.4 / 9]), atol=1e-9
    )

    # type a wrong semi-angle: the data are prepared anew, and the validation says what is wrong
    box = dock.calibration.form.rows["semi_angle"]
    box.setFocus()
    desk.qtbot.keyClicks(box, "9")
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)
    desk.until(lambda: desk.session.data.calibration.semi_angle == 9)
    desk.until(lambda: desk.session.findings is not None)
    assert "bright disk" in dock.findings.text()
    assert "by the calibration" in dock.calibration.disk.text()
    # the bright disk tells better
    desk.click(dock.calibration.use_angle)
    assert desk.session.data.calibration.semi_angle == pytest.approx(20, rel=0.1)
    desk.idle()
    # and undo brings the file's value back
    desk.workspace.do_undo()
    desk.workspace.do_undo()
    assert desk.session.data.calibration.semi_angle == 20
    assert box.text() == ""
    # a value that cannot be is refused at its field and changes nothing
    box.setFocus()
    desk.qtbot.keyClicks(box, "-3")
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)
    assert "greater than 0" in box.toolTip()
    assert desk.session.choices.preparation.semi_angle is None


def test_positions_detectors_and_orientation_follow_at_once(desk):
    desk.take()
    dock, data = desk.data, desk.session.data
    dock.look.pick(4, 7)
    desk.idle()
    assert "position (4, 7)" in dock.look.explorer.where.text()
    np.testing.assert_allclose(
        dock.look.explorer.pattern.image.image, np.sqrt(data.pattern(4, 7)), rtol=1e-6
    )
    np.testing.assert_allclose(
        desk.viewer.layers["scan position"].data[0], [4 * 6.4 / 9, 7 * 6.4 / 9]
    )
    # a click in the picture does the same
    event = type("Click", (), {"button": 1, "position": (2 * 6.4 / 9, 3 * 6.4 / 9)})
    desk.viewer.layers["virtual image"].mouse_drag_callbacks[0](None, event)
    desk.idle()
    assert "position (2, 3)" in dock.look.explorer.where.text()
    # the radius of the detector makes another virtual image, in the dock and in the layer
    before = np.array(desk.viewer.layers["virtual image"].data)
    dock.look.explorer.outer.setValue(30)
    desk.idle()
    from napari_mepdiff.measurement.detectors import virtual_image

    expected = virtual_image(data, dock.look.explorer.inner.value(), 30)
    np.testing.assert_allclose(desk.viewer.layers["virtual image"].data, expected)
    assert not np.allclose(before, expected)
    # dragging a ring too
    dock.look.explorer.rings[1].setSize((56, 56))
    desk.idle()
    assert dock.look.explorer.outer.value() == pytest.approx(28)
    assert dock.look.explorer.choice.currentText() == "own"
    # flips act at once
    flip = dock.orientation.orientation_form.rows["flip_y"]
    desk.qtbot.mouseClick(flip, Qt.MouseButton.LeftButton, pos=_left(flip))
    desk.until(lambda: desk.session.choices.preparation.flip_y)
    desk.idle()
    np.testing.assert_array_equal(
        np.asarray(desk.session.data.data), np.asarray(data.flip_detector(True, False).data)
    )
    desk.workspace.do_undo()
    assert desk.session.data.provenance.get("steps", []) == []
    # rotation from the centre of mass
    desk.click(dock.orientation.estimate_button)
    desk.until(lambda: dock.orientation.found is not None)
    angle = dock.orientation.found.angle
    assert desk.session.choices.preparation.rotation != angle
    desk.click(dock.orientation.use_rotation)
    assert desk.session.choices.preparation.rotation == angle
    # PACBED
    dock.look.explorer.show_choice.setCurrentIndex(1)
    dock.look.show_pattern()
    desk.idle()
    # the preview of the probe follows the defocus
    first = np.array(dock.probe.real.image.image)
    box = dock.probe.focus_form.rows["overfocus"]
    box.setFocus()
    desk.qtbot.keyClicks(box, "300")
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)
    desk.idle()
    assert desk.session.data.optics.overfocus == 300
    assert dock.probe.real.image.image.shape == first.shape
    assert (dock.probe.real.image.image > 0.1).sum() > (first > 0.1).sum()  # wider
    assert "90 %" in dock.probe.extent.text()
    assert not desk.errors


def _left(widget):
    from qtpy.QtCore import QPoint

    return QPoint(8, widget.height() // 2)


def test_what_the_file_does_not_say_is_named(desk):
    from dataclasses import replace

    from napari_mepdiff.measurement.dataset import Calibration

    bare = replace(small_data(truth=False), calibration=Calibration(), optics=None)
    desk.take(bare)
    for word in ("beam energy", "semi-angle", "detector pixel", "scan step"):
        assert word in desk.data.about.text()
    assert "error" in desk.data.findings.text()
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on)
    assert run.state == "failed"
    assert "not known" in run.error
    assert desk.reconstruct.start_button.isEnabled()


def test_a_run_streams_into_its_layer(desk):
    desk.take()
    seen = []
    desk.session.frame_shown.connect(
        lambda run: seen.append(np.array(desk.workspace.run_layers.layer_of(run).data))
    )
    run = desk.run(steps=150)
    assert run.state == "done", run.error
    assert len(seen) >= 3
    assert not np.array_equal(seen[0], seen[-1])
    layer = desk.workspace.run_layers.layer_of(run)
    np.testing.assert_array_equal(layer.data, run.frame.volume)
    assert [str(u) for u in layer.units] == ["angstrom"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    np.testing.assert_allclose(layer.scale, (1.6, 0.2, 0.2))
    history = layer.metadata[KEY]["provenance"]
    assert history["settings"]["steps"] == 150
    assert history["outcome"]["state"] == "done"
    assert desk.viewer.canvas.overlays.scale_bar.visible
    # curves and progress
    steps, loss = desk.reconstruct.curves.lines[0].getData()
    assert steps[-1] == 150
    assert np.isfinite(loss).all()
    assert desk.reconstruct.bar.value() == 150
    # a second run has a name and a layer of its own; the first is not touched
    kept = np.array(layer.data)
    second = desk.run(seed=1)
    assert second.name != run.name
    np.testing.assert_array_equal(desk.viewer.layers[run.name].data, kept)


def test_pause_step_resume_stop(desk):
    desk.take()
    desk.settings(steps=5000)
    dock = desk.reconstruct
    desk.click(dock.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3)
    # the curves, drawn once a second, once lacked the last steps as long as a pause held
    drawn = dock._drawn
    desk.until(lambda: dock._drawn != drawn)  # the next time is in a second
    at = run.frame.step
    desk.until(lambda: run.frame.step > at)
    desk.click(dock.pause_button)
    line = dock.curves.lines[0]
    desk.until(lambda: line.getData()[0][-1] == run.frame.step > at)
    desk.qtbot.wait(300)
    held = run.frame.step
    desk.qtbot.wait(300)
    assert run.frame.step == held
    assert run.state == "paused"
    assert dock.pause_button.text() == "Resume"
    for n in (1, 2):
        desk.click(dock.step_button)
        desk.until(lambda n=n: run.frame.step == held + n)
        desk.qtbot.wait(150)
        assert run.frame.step == held + n
    desk.click(dock.start_button)  # now "Go on"
    desk.until(lambda: run.frame.step > held + 5)
    desk.click(dock.stop_button)
    desk.until(lambda: not run.going_on)
    assert run.state == "stopped"
    np.testing.assert_array_equal(desk.workspace.run_layers.layer_of(run).data, run.frame.volume)
    assert run.volume().provenance["outcome"]["state"] == "stopped"


def test_steering_in_mid_run_is_live_marked_and_undone(desk):
    desk.take()
    desk.settings(steps=5000)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3)
    dock = desk.guidance
    desk.raise_dock(dock)
    assert not dock.form.rows["guidance"].isEnabled()  # fixed for the run
    dock.slider.setValue(dock.slider.value() + 30)
    desk.until(lambda: any("weight" in c.settings for c in run.control.changes))
    step, change = run.control.changes[-1].step, run.control.changes[-1].settings
    assert change["weight"] == pytest.approx(10**0.6, rel=0.02)
    assert dock.box.value() == pytest.approx(change["weight"])
    desk.until(
        lambda: (
            run.frame.step > step
            and run.frame.info.factor == pytest.approx(change["weight"], rel=0.2)
        )
    )
    desk.until(lambda: len(desk.reconstruct.curves.marks) == 3)  # a line in each of three plots
    desk.until(lambda: dock.changes.count() == 1)
    assert f"step {step}: Guidance weight" in dock.changes.item(0).text()
    # undo reaches the run
    desk.click(dock.undo_button)
    desk.until(lambda: run.control.changes[-1].settings.get("weight") == 1.0)
    # a free curve, with a point dragged
    desk.click(dock.draw)
    desk.until(lambda: run.control.changes[-1].settings.get("schedule") == "curve")
    assert len(dock.editor.points) == 6
    point = dock.editor.points[2]
    point.setPos(point.pos().x(), 0.25)
    point.sigPositionChangeFinished.emit(point)
    desk.until(lambda: desk.session.settings("dps").curve[2][1] == pytest.approx(0.25))
    # back, as a branch; on a busy machine ten steps may not be there yet
    desk.until(lambda: run.frame.step >= 12)
    desk.click(desk.reconstruct.pause_button)
    at = run.frame.step
    desk.click(dock.back_ten)
    desk.until(lambda: run.control.changes[-1].back is not None)
    made = run.control.changes[-1]
    assert at - 10 <= made.back <= made.step - 9  # the step under way may have come meanwhile
    desk.until(lambda: run.frame.step == made.back)
    words = f"step {made.step}: back to step {made.back}"
    desk.until(lambda: words in dock.changes.item(dock.changes.count() - 1).text())
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)


def test_earlier_frames_can_be_looked_at(desk):
    desk.take()
    run = desk.run()
    dock = desk.reconstruct
    assert dock.runs.scrub.maximum() == len(run.frames) - 1
    dock.runs.scrub.setValue(2)
    np.testing.assert_array_equal(
        desk.workspace.run_layers.layer_of(run).data, run.frames.volume(2)
    )
    assert f"step {run.frames.kept[2]['step']}" in dock.runs.scrub_text.text()
    dock.runs.scrub.setValue(dock.runs.scrub.maximum())
    np.testing.assert_array_equal(desk.workspace.run_layers.layer_of(run).data, run.frame.volume)
    desk.click(dock.runs.frames_button)
    layer = desk.viewer.layers[-1]
    assert layer.ndim == 4
    assert layer.axis_labels[0] == "frame"
    np.testing.assert_array_equal(np.asarray(layer.data[1]), run.frames.volume(1))
    desk.viewer.dims.set_point(0, 3)
    desk.viewer.layers.remove(layer)
    # the run's settings can be taken over again
    desk.session.change_settings("dps", steps=77)
    desk.click(dock.runs.again_button)
    assert desk.session.settings("dps").steps == 30
    desk.click(dock.runs.show_button)
    desk.click(dock.runs.remove_button)
    assert run not in desk.session.runs
    assert run.name not in desk.viewer.layers


def test_ordinary_solvers_preview_and_start_from_a_layer(desk):
    desk.take()
    dock = desk.reconstruct
    index = dock.setup.solver.findData("adam")
    dock.setup.solver.setCurrentIndex(index)
    dock.setup.solver.activated.emit(index)
    desk.session.change_settings("adam", iterations=6)
    assert desk.guidance.note.text().startswith("Guidance belongs")
    desk.until(
        lambda: "Estimated" in dock.estimate.text.text() and "on cpu" in dock.estimate.text.text()
    )
    desk.click(dock.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on)
    assert run.state == "done"
    # from its volume on, as a preview
    index = dock.setup.start_from.findData(run.name)
    dock.setup.start_from.setCurrentIndex(index)
    dock.setup.start_from.activated.emit(index)
    dock.setup.preview.setChecked(True)
    assert "not publish" in dock.setup.preview_text.text()
    desk.click(dock.start_button)
    second = desk.session.runs[-1]
    desk.until(lambda: not second.going_on)
    assert second.state == "done", second.error
    assert second.preview
    assert second.first.detector_stride == 2
    assert "preview" in second.name
    assert "preview" in desk.viewer.canvas.overlays.text.text
    assert second.volume().provenance["recipe"]["start"]["name"] == run.name
    # a start that is gone is said before anything begins
    desk.viewer.layers.remove(run.name)
    assert desk.session.choices.setup.start == ""


def test_a_change_in_mid_run_is_listed_at_once_and_the_estimate_comes_back(desk, monkeypatch):
    """Where pictures are slow, seconds went by in which it looked as if nothing had been done; and
    the line of the estimate stayed empty until the next change."""
    desk.take()
    desk.settings(steps=5000)
    line = desk.reconstruct.estimate.text
    desk.until(lambda: "Estimated" in line.text())
    desk.session.change_settings("dps", weight=2.0)
    assert line.text() == ""
    desk.workspace.do_undo()
    assert "Estimated" in line.text()
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None)
    monkeypatch.setattr(desk.workspace.runner, "_due", lambda now: False)  # no more pictures
    desk.session.change_settings("dps", weight=3.0)
    assert line.text() == ""
    desk.until(lambda: len(run.control.changes) == 1)
    desk.until(lambda: desk.guidance.changes.count() == 1)
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)
    desk.until(lambda: "Estimated" in line.text())


def test_a_layer_that_is_renamed_stays_chosen_and_adds_no_step_of_undo(desk):
    """Undo took the name back, and the run was to start from a layer that is not there."""
    desk.take()
    layer = desk.workspace.book.add_volume(small_data().truth, "first guess")
    desk.session.change("setup", modes=2)
    desk.session.change("setup", start=layer.name)
    layer.name = "better guess"
    assert desk.session.choices.setup.start == "better guess"
    assert desk.reconstruct.setup.start_from.currentData() == "better guess"
    desk.workspace.do_undo()
    assert desk.session.choices.setup.start == ""
    desk.session.redo()
    assert desk.session.choices.setup.start == "better guess"
    desk.workspace.do_undo()
    desk.workspace.do_undo()
    assert desk.session.choices.setup.modes == 1
    region = desk.workspace.book.add_region()
    desk.session.change("export", region=region.name)
    region.name = "the defect"
    assert desk.session.choices.export.region == "the defect"
    desk.workspace.do_undo()
    assert desk.session.choices.export.region == ""


def test_a_file_that_names_its_elements_changes_no_setting(desk):
    """A simulated crystal was begun with whole atoms, a measurement of one's own without."""
    section = desk.reconstruct.settings
    started = []
    for truth in (True, False):
        desk.take(small_data(truth=truth), f"{truth}.h5")
        started.append([desk.session.settings(name) for name in SOLVERS])
        assert section.offer.isVisibleTo(section) == truth
    assert started[0] == started[1]
    assert desk.session.settings("dps").elements == ()
    # they are offered, and taken over by a click that can be taken back
    desk.take(small_data(), "again.h5")
    desk.raise_dock(desk.reconstruct)
    assert "Sr, Ti" in section.crystal.text()
    desk.click(section.use_elements)
    assert desk.session.settings("dps").elements == ("Sr", "Ti")
    assert not section.offer.isVisibleTo(section)
    desk.workspace.do_undo()
    assert desk.session.settings("dps").elements == ()
    assert section.offer.isVisibleTo(section)
