"""What is written, compared and drawn belongs to its run, whatever was opened or done since."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_mepdiff.evaluation.metrics import ssim
from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.gui.layer_data import KEY

from .conftest import small_data
from .test_compare_export import choose


def export(desk, folder, *names):
    """Export layers and give the files."""
    desk.session.change("export", folder=str(folder), format=".h5", overwrite=True)
    desk.export.tick(*names)
    before = list(desk.session.exported)
    desk.session.exported.clear()
    desk.click(desk.export.export_button)
    desk.until(lambda: len(desk.session.exported) == len(names))
    out = [Path(p) for p in desk.session.exported]
    desk.session.exported[:] = before + desk.session.exported
    return out


def provenance(path):
    return json.loads(path.with_name(path.name + ".json").read_text())["provenance"]


def test_a_run_stays_with_its_own_measurement(desk, tmp_path, monkeypatch):
    """A run on MoS₂ was written as srtio3_run_1 once SrTiO₃ had been opened, and its scores were
    those against the crystal of the file that was opened last."""
    from napari_mepdiff.evaluation import figures

    desk.take(small_data(seed=0), "first.h5")
    run = desk.run()
    desk.take(small_data(seed=5), "second.h5")  # of the same grid, and another crystal
    truth = run.data.truth.array
    assert not np.array_equal(desk.session.data.truth.array, truth)
    # the file and its name
    (path,) = export(desk, tmp_path, run.name)
    assert path.name == "first_run_1_DPS.h5"
    assert provenance(path)["measurement"] == "first"
    assert desk.workspace.window.partial_path(run).name.startswith("first_")
    # a figure: its truth and its title
    drawn = []
    real = figures.compare_figure
    monkeypatch.setattr(
        figures, "compare_figure", lambda *args: (drawn.append(args), real(*args))[1]
    )
    desk.export.tick(run.name)
    desk.click(desk.export.figure.button)
    desk.idle()
    volumes, path, scores, title = drawn[0]
    np.testing.assert_array_equal(volumes["ground truth"].array, truth)
    assert title == "first"
    assert path.name.startswith("first_")
    assert set(scores) == {run.name}
    # the patterns beside its model
    desk.raise_dock(desk.compare)
    choose(desk.compare.test, run.name)
    desk.click(desk.compare.patterns.button)
    desk.until(lambda: "misfit" in desk.compare.patterns.misfit.text())
    shown = desk.compare.patterns.measured.image.image
    np.testing.assert_allclose(shown, np.sqrt(np.asarray(run.data.pattern(0, 0))), rtol=1e-6)
    # the scores
    choose(desk.compare.reference, "ground truth")
    desk.click(desk.compare.compare_button)
    desk.until(lambda: desk.compare.found is not None)
    np.testing.assert_array_equal(desk.compare.found.reference.array, truth)
    score = float(desk.compare.table.item(0, 0).text())
    assert score == pytest.approx(ssim(truth, run.frame.volume), abs=1e-3)
    assert desk.compare.table.item(6, 0).text() != "–"  # the misfit to its own patterns
    # the truth of the file that is open now is another layer, and says whose it is
    other = desk.workspace.measurement_layers.show_truth()
    assert "second" in other.name
    np.testing.assert_array_equal(other.data, desk.session.data.truth.array)
    choose(desk.compare.reference, other.name)
    assert desk.compare.reference.currentText() == "ground truth"  # back to its own


def test_export_writes_what_the_picture_shows(desk, tmp_path):
    """Looking back to an earlier frame and exporting it gave the newest one."""
    desk.take()
    run = desk.run()
    desk.reconstruct.runs.scrub.setValue(2)
    layer = desk.workspace.run_layers.layer_of(run)
    (path,) = export(desk, tmp_path, run.name)
    np.testing.assert_array_equal(load_volume(path).array, run.frames.volume(2))
    shown = provenance(path)["shown"]
    assert shown["step"] == run.frames.kept[2]["step"]
    assert not shown["newest"]
    assert not shown["altered"]
    assert f"frame of step {shown['step']}" in desk.messages[-1][1]
    # a copy of it stays that frame while the layer goes on
    desk.viewer.layers.append(type(layer)(**copied(layer)))
    desk.reconstruct.runs.scrub.setValue(desk.reconstruct.runs.scrub.maximum())
    first, second = export(desk, tmp_path, run.name, "copy")
    by_name = {p.name: p for p in (first, second)}
    assert provenance(by_name["small_copy.h5"])["shown"]["step"] == shown["step"]
    assert provenance(by_name["small_run_1_DPS.h5"])["shown"]["newest"]
    # File ▸ Save says the same
    saved = tmp_path / "saved.h5"
    desk.viewer.layers["copy"].save(str(saved), plugin="napari-mepdiff")
    assert load_volume(saved).provenance["shown"]["step"] == shown["step"]


def copied(layer):
    return {
        "data": np.array(layer.data),
        "name": "copy",
        "scale": layer.scale,
        "translate": layer.translate,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
        "metadata": dict(layer.metadata),
    }


def test_values_that_the_user_changed_are_recorded_as_changed(desk, tmp_path):
    """A smoothed volume went out as the result of the run, with the run's misfit."""
    desk.take()
    run = desk.run()
    layer = desk.workspace.run_layers.layer_of(run)
    layer.data = np.asarray(layer.data) * 0.5
    (path,) = export(desk, tmp_path, run.name)
    np.testing.assert_array_equal(load_volume(path).array, run.frame.volume * np.float32(0.5))
    assert provenance(path)["shown"]["altered"]
    assert "were changed" in desk.messages[-1][1]
    # an opened volume too
    desk.workspace.files.open_volume(path)
    desk.idle()
    opened = desk.viewer.layers[-1]
    (again,) = export(desk, tmp_path, opened.name)
    assert "altered" not in provenance(again)
    opened.data[0] = 1.0
    (changed,) = export(desk, tmp_path, opened.name)
    assert again == changed
    assert "changed in napari" in provenance(changed)["altered"]


def test_renamed_layers_are_still_found(desk, tmp_path):
    """Renaming a run's layer was an uncaught KeyError in Export, and lost it in Compare."""
    desk.take()
    run = desk.run()
    desk.session.change("setup", start=run.name)
    desk.export.tick(run.name)
    choose(desk.compare.test, run.name)
    desk.workspace.run_layers.layer_of(run).name = "my best"
    assert desk.export.ticked()[0].name == "my best"
    assert desk.compare.test.currentText() == "my best"
    assert desk.session.choices.setup.start == "my best"
    (path,) = export(desk, tmp_path, "my best")
    assert path.name == "small_my_best.h5"
    assert provenance(path)["run"] == run.name
    choose(desk.compare.reference, "ground truth")
    desk.click(desk.compare.compare_button)
    desk.until(lambda: desk.compare.found is not None)
    desk.click(desk.reconstruct.runs.show_button)
    desk.reconstruct.runs.scrub.setValue(1)
    np.testing.assert_array_equal(desk.viewer.layers["my best"].data, run.frames.volume(1))
    # another layer that takes the run's name is not taken for it
    foreign = desk.viewer.add_image(np.zeros(run.frame.volume.shape, np.float32), name=run.name)
    assert desk.workspace.run_layers.run_of(foreign) is None
    assert not desk.errors


def test_a_folder_that_cannot_take_files_is_refused_not_replaced(desk, tmp_path, monkeypatch):
    """With a read-only folder in the field the file went to the home folder, without a word."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    desk.take()
    run = desk.run()
    desk.export.tick(run.name)
    desk.export.folder.setText("/proc")  # nobody can write there, not even root
    desk.export._folder_typed()
    assert "/proc" in desk.errors[-1]
    assert desk.export.folder.text() == ""
    assert desk.session.choices.export.folder == ""
    # one that was remembered and has become so
    desk.session.change("export", folder="/proc")
    for click in (desk.export.export_button, desk.export.figure.button, desk.export.film.button):
        count = len(desk.errors)
        desk.click(click)
        desk.idle()
        assert len(desk.errors) == count + 1
        assert "/proc" in desk.errors[-1]
    assert list((tmp_path / "home").iterdir()) == []
    gone = tmp_path / "gone"
    desk.session.change("export", folder=str(gone))
    desk.click(desk.export.export_button)
    assert "no folder" in desk.errors[-1]
    assert desk.session.exported == []
    _frames_go_with_their_run(desk, run)


def _frames_go_with_their_run(desk, run):
    """The layer of all frames stayed when the run was removed, and the next slice was an error."""
    errors = len(desk.errors)
    desk.click(desk.reconstruct.runs.frames_button)
    layer = desk.viewer.layers[-1]
    assert layer.ndim == 4
    layer.name = "renamed"
    desk.click(desk.reconstruct.runs.frames_button)  # once more: in its place
    assert sum(x.ndim == 4 for x in desk.viewer.layers) == 1
    keep = np.array(desk.workspace.run_layers.layer_of(run).data)
    desk.viewer.add_image(keep, name="mine", metadata=dict(desk.viewer.layers[run.name].metadata))
    desk.click(desk.reconstruct.runs.remove_button)
    assert not [x for x in desk.viewer.layers if x.ndim == 4]
    desk.viewer.dims.set_point(0, 0.0)
    mine = desk.viewer.layers["mine"].metadata[KEY]
    assert mine["role"] == "volume"
    assert mine["provenance"]["shown"]["newest"]
    assert len(desk.errors) == errors


def test_contrast_owes_nothing_to_the_truth(desk):
    """With ground truth the picture had the truth's contrast; on real data another one."""
    limits = []
    for truth in (True, False):
        desk.take(small_data(truth=truth), f"{truth}.h5")
        run = desk.run()
        limits.append(tuple(desk.workspace.run_layers.layer_of(run).contrast_limits))
    assert limits[0] == pytest.approx(limits[1])
