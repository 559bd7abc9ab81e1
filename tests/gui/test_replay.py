"""What a run leaves serves later ones, in the docks: its record, and what it refined."""

from __future__ import annotations

import numpy as np

from napari_mepdiff.measurement.formats import own
from napari_mepdiff.session.saving import save_run

from .conftest import small_data


def test_a_run_is_made_again_from_the_file_that_it_left(desk, tmp_path):
    """What the command line could play again, the docks could not."""
    path = tmp_path / "small.h5"
    own.save(small_data(), path)
    desk.workspace.files.open(str(path))
    desk.until(lambda: desk.session.findings is not None)
    desk.idle()
    desk.settings(steps=400)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 3)
    desk.session.change_settings("dps", weight=2.0)
    desk.until(lambda: bool(run.control.changes) and run.frame.step > run.control.changes[0].step)
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)
    save_run(run, tmp_path / "out.tif")
    desk.take(small_data(seed=5), "other.h5")  # another measurement is open meanwhile
    desk.reconstruct.runs.replay(tmp_path / "out.tif.json")
    desk.until(lambda: len(desk.session.runs) == 2)
    again = desk.session.runs[-1]
    desk.until(lambda: not again.going_on)
    assert again.measurement_name == "small"
    assert again.record().changes == run.record().changes
    np.testing.assert_array_equal(again.frame.volume, run.frame.volume)
    np.testing.assert_array_equal(desk.viewer.layers[again.name].data, run.frame.volume)
    assert not desk.errors
    desk.reconstruct.runs.replay(tmp_path / "other.json")
    desk.idle()
    assert "other.json was not played again: no such file" in desk.errors[-1]


def test_what_a_run_refined_is_taken_into_the_next_one(desk, tmp_path):
    """Refined probe and positions lay beside the volume, and no dock could use them."""
    desk.take()
    desk.session.change("setup", solver="refine")
    desk.session.change_settings("refine", iterations=4, probe_start=1, volume_step=4.0)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on)
    save_run(run, tmp_path / "out.h5")
    place, setup = tmp_path / "out_microscope.h5", desk.reconstruct.setup
    desk.session.change("setup", solver="adam")
    desk.session.change_settings("adam", iterations=2)
    setup.microscope.setText(str(tmp_path / "none.h5"))
    setup.microscope.editingFinished.emit()
    assert "there is no file" in desk.errors[-1]
    assert setup.microscope.text() == desk.session.choices.setup.microscope == ""
    setup.microscope.setText(str(place))
    setup.microscope.editingFinished.emit()
    desk.click(desk.reconstruct.start_button)
    second = desk.session.runs[-1]
    desk.until(lambda: not second.going_on)
    assert second.state == "done", second.error
    assert second.recipe.microscope.path == str(place)
    probe = second.problem.probe.numpy()
    np.testing.assert_allclose(probe, run.frame.info.probe, rtol=1e-4, atol=1e-4)
    place.unlink()  # gone meanwhile: said, and no run begins
    desk.click(desk.reconstruct.start_button)
    assert "no such file" in desk.errors[-1]
    assert len(desk.session.runs) == 2
    desk.take(small_data(seed=5), "other.h5")  # of another scan
    assert desk.session.choices.setup.microscope == setup.microscope.text() == ""
