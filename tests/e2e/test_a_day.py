"""A session as a user would have it, from a sample to an export that is opened again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt

from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.gui.layer_data import KEY

from ..cli.terminal import mepdiff
from ..needs import needs


def choose(box, text):
    index = box.findText(text)
    box.setCurrentIndex(index)
    box.activated.emit(index)


@needs("zarr", "ome_zarr")
def test_from_a_sample_to_an_exported_volume_and_back(desk, tmp_path):
    session, viewer = desk.session, desk.viewer
    # open a sample
    viewer.open_sample("napari-mepdiff", "srtio3")
    desk.until(lambda: session.findings is not None)
    desk.idle()
    assert "nothing wrong" in desk.data.findings.text()
    # calibrate: the semi-angle from the bright disk
    desk.click(desk.data.calibration.use_angle)
    assert abs(session.data.calibration.semi_angle - 21.4) < 1
    desk.idle()
    desk.workspace.do_undo()
    desk.idle()
    # settings, start; the real prior
    truth = session.data.truth
    session.change("setup", slices=truth.shape[0], slice_thickness=truth.voxel_size[0])
    desk.raise_dock(desk.reconstruct)
    session.change_settings(
        "dps", guidance="newton", elements=(), steps=8, evaluations=5, fraction=0.1
    )
    desk.until(lambda: "on cpu" in desk.reconstruct.estimate.text.text(), 60)
    desk.click(desk.reconstruct.start_button)
    run = session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3, 60)
    # change the weight in mid-run, with the slider
    desk.raise_dock(desk.guidance)
    desk.guidance.slider.setFocus()
    desk.qtbot.keyClick(desk.guidance.slider, Qt.Key.Key_PageUp)
    desk.until(lambda: any("weight" in c.settings for c in run.control.changes), 60)
    # pause, resume
    desk.click(desk.guidance.hold)
    desk.until(lambda: run.state == "paused")
    desk.qtbot.wait(600)
    at = run.frame.step
    desk.qtbot.wait(300)
    assert run.frame.step == at
    desk.click(desk.guidance.hold)
    desk.until(lambda: not run.going_on, 120)
    assert run.state == "done", run.error
    # compare with the truth
    desk.raise_dock(desk.compare)
    choose(desk.compare.reference, "ground truth")
    choose(desk.compare.test, run.name)
    desk.click(desk.compare.compare_button)
    desk.until(lambda: desk.compare.found is not None, 60)
    assert float(desk.compare.table.item(2, 0).text()) > 0.3  # SSIM of the depth sum
    desk.click(desk.compare.back_button)
    # export, and open it again
    desk.raise_dock(desk.export)
    session.change("export", folder=str(tmp_path), format=".zarr")
    desk.export.tick(run.name)
    desk.click(desk.export.export_button)
    desk.until(lambda: bool(session.exported), 30)
    path = Path(session.exported[-1])
    np.testing.assert_array_equal(load_volume(path).array, run.frame.volume)
    desk.click(desk.export.written.reopen_button)
    desk.idle()
    layer = viewer.layers[-1]
    np.testing.assert_array_equal(layer.data, viewer.layers[run.name].data)
    np.testing.assert_allclose(layer.scale, viewer.layers[run.name].scale)
    # the file says how to do it all again
    record = json.loads(path.with_name(path.name + ".json").read_text())["provenance"]
    assert record["changes"] == [c.as_json() for c in run.control.changes]
    assert record["recipe"]["opening"]["path"] == "srtio3"
    assert layer.metadata[KEY]["provenance"]["settings"] == record["settings"]
    assert not desk.errors

    # and the command line does, bit for bit
    code, said = mepdiff("replay", f"{path}.json", "-o", tmp_path / "again.h5")
    assert code == 0, said
    np.testing.assert_array_equal(load_volume(tmp_path / "again.h5").array, run.frame.volume)
