"""Every dock, as a user would click through it, in a real viewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mepdiff.gui.guard import avoid_llvm_clash
from napari_mepdiff.gui.layers import KEY

from .conftest import small_data


def test_docks_open_as_tabs_and_fit_a_small_laptop(desk):
    from qtpy.QtWidgets import QApplication, QScrollArea

    desk.take()
    for name, dock in desk.docks.items():
        desk.raise_dock(dock)
        QApplication.processEvents()
        area = dock.findChild(QScrollArea)
        assert area.widget().minimumSizeHint().width() <= area.viewport().width(), f"{name} is cut off at the right"
        assert dock.minimumSizeHint().height() < 500
        assert dock.minimumWidth() <= 360
    assert desk.viewer.window.geometry()[2] <= 1366


def test_data_dock_shows_and_calibrates(desk):
    desk.take(small_data())
    dock = desk.data
    assert "9 × 9" in dock.about.text()
    assert "nothing wrong" in dock.findings.text()
    assert dock.form.rows["energy"].placeholderText() == "300"
    layer = desk.viewer.layers["virtual image"]
    assert [str(u) for u in layer.units] == ["angstrom", "angstrom"]
    np.testing.assert_allclose(layer.affine.affine_matrix[:2, :2], np.diag([6.4 / 9, 6.4 / 9]), atol=1e-9)

    # type a wrong semi-angle: the data are prepared anew, and the validation says what is wrong
    box = dock.form.rows["semi_angle"]
    box.setFocus()
    desk.qtbot.keyClicks(box, "9")
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)
    desk.until(lambda: desk.session.data.calibration.semi_angle == 9)
    desk.until(lambda: desk.session.findings is not None)
    assert "bright disk" in dock.findings.text()
    assert "by the calibration" in dock.disk.text()
    # the bright disk tells better
    desk.click(dock.use_angle)
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
    dock.pick(4, 7)
    desk.idle()
    assert "position (4, 7)" in dock.explorer.where.text()
    np.testing.assert_allclose(dock.explorer.pattern.image.image, np.sqrt(data.pattern(4, 7)), rtol=1e-6)
    np.testing.assert_allclose(desk.viewer.layers["scan position"].data[0], [4 * 6.4 / 9, 7 * 6.4 / 9])
    # a click in the picture does the same
    event = type("Click", (), {"button": 1, "position": (2 * 6.4 / 9, 3 * 6.4 / 9)})
    desk.viewer.layers["virtual image"].mouse_drag_callbacks[0](None, event)
    desk.idle()
    assert "position (2, 3)" in dock.explorer.where.text()
    # the radius of the detector makes another virtual image, in the dock and in the layer
    before = np.array(desk.viewer.layers["virtual image"].data)
    dock.explorer.outer.setValue(30)
    desk.idle()
    from napari_mepdiff.measurement.virtual import virtual_image

    expected = virtual_image(data, dock.explorer.inner.value(), 30)
    np.testing.assert_allclose(desk.viewer.layers["virtual image"].data, expected)
    assert not np.allclose(before, expected)
    # dragging a ring too
    dock.explorer.rings[1].setSize((56, 56))
    desk.idle()
    assert dock.explorer.outer.value() == pytest.approx(28)
    assert dock.explorer.choice.currentText() == "own"
    # flips act at once
    flip = dock.orientation_form.rows["flip_y"]
    desk.qtbot.mouseClick(flip, Qt.MouseButton.LeftButton, pos=_left(flip))
    desk.until(lambda: desk.session.choices.preparation.flip_y)
    desk.idle()
    np.testing.assert_array_equal(np.asarray(desk.session.data.data), np.asarray(data.flip_detector(True, False).data))
    desk.workspace.do_undo()
    assert desk.session.data.provenance.get("steps", []) == []
    # rotation from the centre of mass
    desk.click(dock.estimate_button)
    desk.until(lambda: dock._rotation is not None)
    desk.click(dock.use_rotation)
    assert desk.session.choices.preparation.rotation == dock._rotation.angle if dock._rotation else True
    # PACBED
    dock.explorer.show_choice.setCurrentIndex(1)
    dock._show_pattern()
    desk.idle()
    assert not desk.errors


def _left(widget):
    from qtpy.QtCore import QPoint

    return QPoint(8, widget.height() // 2)


def test_probe_preview_follows_the_defocus(desk):
    desk.take()
    dock = desk.data
    first = np.array(dock.real.image.image)
    box = dock.focus_form.rows["overfocus"]
    box.setFocus()
    desk.qtbot.keyClicks(box, "300")
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)
    desk.idle()
    assert desk.session.data.optics.overfocus == 300
    assert dock.real.image.image.shape == first.shape
    assert (dock.real.image.image > 0.1).sum() > (first > 0.1).sum()  # wider
    assert "90 %" in dock.extent.text()


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
    desk.session.frame_shown.connect(lambda run: seen.append(np.array(desk.workspace.book.layer_of(run).data)))
    run = desk.run(steps=150)
    assert run.state == "done", run.error
    assert len(seen) >= 3
    assert not np.array_equal(seen[0], seen[-1])
    layer = desk.workspace.book.layer_of(run)
    np.testing.assert_array_equal(layer.data, run.frame.volume)
    assert [str(u) for u in layer.units] == ["angstrom"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    np.testing.assert_allclose(layer.scale, (1.6, 0.2, 0.2))
    history = layer.metadata[KEY]["provenance"]
    assert history["settings"]["steps"] == 150
    assert history["complete"]
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
    desk.click(dock.pause_button)
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
    np.testing.assert_array_equal(desk.workspace.book.layer_of(run).data, run.frame.volume)
    assert not run.volume().provenance["complete"]


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
    desk.until(lambda: any("weight" in c for _, c in run.control.changes))
    step, change = run.control.changes[-1]
    assert change["weight"] == pytest.approx(10**0.6, rel=0.02)
    assert dock.box.value() == pytest.approx(change["weight"])
    desk.until(lambda: run.frame.step > step and run.frame.info["factor"] == pytest.approx(change["weight"], rel=0.2))
    desk.qtbot.wait(1200)  # the curves are drawn once a second
    assert len(desk.reconstruct.curves.marks) == 3  # one line in each of three plots
    assert f"step {step}: weight" in dock.changes.item(0).text()
    # undo reaches the run
    desk.click(dock.undo_button)
    desk.until(lambda: run.control.changes[-1][1].get("weight") == 1.0)
    # a free curve, with a point dragged
    desk.click(dock.draw)
    desk.until(lambda: run.control.changes[-1][1].get("schedule") == "curve")
    assert len(dock.editor.points) == 6
    point = dock.editor.points[2]
    point.setPos(point.pos().x(), 0.25)
    point.sigPositionChangeFinished.emit(point)
    desk.until(lambda: desk.session.settings("dps").curve[2][1] == pytest.approx(0.25))
    # back, as a branch
    desk.click(desk.reconstruct.pause_button)
    desk.qtbot.wait(200)
    at = run.frame.step
    desk.click(dock.back_ten)
    desk.until(lambda: run.frame.step <= at - 9)
    assert "back to step" in dock.changes.item(dock.changes.count() - 1).text() or run.control.changes[-1][1].get("back")
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)


def test_earlier_frames_can_be_looked_at(desk):
    desk.take()
    run = desk.run()
    dock = desk.reconstruct
    assert dock.scrub.maximum() == len(run.frames) - 1
    dock.scrub.setValue(2)
    np.testing.assert_array_equal(desk.workspace.book.layer_of(run).data, run.frames.volume(2))
    assert f"step {run.frames.kept[2]['step']}" in dock.scrub_text.text()
    dock.scrub.setValue(dock.scrub.maximum())
    np.testing.assert_array_equal(desk.workspace.book.layer_of(run).data, run.frame.volume)
    desk.click(dock.frames_button)
    layer = desk.viewer.layers[-1]
    assert layer.ndim == 4
    assert layer.axis_labels[0] == "frame"
    np.testing.assert_array_equal(np.asarray(layer.data[1]), run.frames.volume(1))
    desk.viewer.dims.set_point(0, 3)
    desk.viewer.layers.remove(layer)
    # the run's settings can be taken over again
    desk.session.change_settings("dps", steps=77)
    desk.click(dock.again_button)
    assert desk.session.settings("dps").steps == 30
    desk.click(dock.show_button)
    desk.click(dock.remove_button)
    assert run not in desk.session.runs
    assert run.name not in desk.viewer.layers


def test_ordinary_solvers_preview_and_start_from_a_layer(desk):
    desk.take()
    dock = desk.reconstruct
    index = dock.solver.findData("adam")
    dock.solver.setCurrentIndex(index)
    dock.solver.activated.emit(index)
    desk.session.change_settings("adam", iterations=6)
    assert desk.guidance.note.text().startswith("Guidance belongs")
    desk.until(lambda: "Estimated" in dock.estimate_text.text() and "on cpu" in dock.estimate_text.text())
    desk.click(dock.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on)
    assert run.state == "done"
    # from its volume on, as a preview
    index = dock.start_from.findData(run.name)
    dock.start_from.setCurrentIndex(index)
    dock.start_from.activated.emit(index)
    dock.preview.setChecked(True)
    assert "not publish" in dock.preview_text.text()
    desk.click(dock.start_button)
    second = desk.session.runs[-1]
    desk.until(lambda: not second.going_on)
    assert second.state == "done", second.error
    assert second.preview
    assert second.first.detector_stride == 2
    assert "preview" in second.name
    assert "preview" in desk.viewer.canvas.overlays.text.text
    assert second.volume().provenance["started_from"] == run.name
    # a start that is gone is said before anything begins
    desk.viewer.layers.remove(run.name)
    assert desk.session.choices.setup.start == ""


def test_the_file_s_elements_are_taken_over_once(desk):
    desk.take()
    assert set(desk.session.settings("dps").elements) == {"Sr", "Ti"}
    desk.session.change_settings("dps", elements=("Sr",))
    desk.session.change("preparation", flip_y=True)
    assert desk.session.settings("dps").elements == ("Sr",)
    desk.workspace.do_undo()
    assert not desk.session.choices.preparation.flip_y
    assert desk.session.can_redo


def test_themes_reach_the_plots(desk):
    desk.take()
    for theme in ("light", "dark"):
        desk.viewer.theme = theme
        background = desk.reconstruct.curves.misfit.backgroundBrush().color()
        assert (background.lightness() > 128) == (theme == "light")


def test_triton_is_kept_out_beside_mesa():
    import sys

    assert avoid_llvm_clash() in (True, False)
    if sys.platform.startswith("linux"):
        assert "libLLVM" not in Path("/proc/self/maps").read_text() or "triton" in sys.modules
