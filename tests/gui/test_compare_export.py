"""Compare and Export, clicked through; files read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_mepdiff.base.extras import available
from napari_mepdiff.evaluation.metrics import ssim
from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.gui.layer_data import KEY

from ..needs import needs
from .conftest import small_data


def choose(box, text):
    index = box.findText(text)
    assert index >= 0, f"{text!r} is not among {[box.itemText(i) for i in range(box.count())]}"
    box.setCurrentIndex(index)
    box.activated.emit(index)


def view(desk, name):
    box = desk.compare.form.rows["view"]
    choose(box, name)
    desk.idle()


@pytest.fixture
def compared(desk):
    """A run against the truth."""
    desk.take()
    run = desk.run()
    desk.raise_dock(desk.compare)
    choose(desk.compare.reference, "ground truth")
    choose(desk.compare.test, run.name)
    desk.click(desk.compare.compare_button)
    desk.until(lambda: desk.compare.found is not None)
    return desk, run


def test_against_the_truth(compared):
    desk, run = compared
    dock, viewer = desk.compare, desk.viewer
    truth = desk.session.data.truth.array
    assert dock.table.item(0, 0).text() == f"{ssim(truth, run.frame.volume):.3f}"
    assert len(dock.per_slice.ssim.getData()[0]) == 4
    # side by side: reference at the left, contrast linked, one camera
    assert viewer.canvas.grid.enabled
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == ["ground truth", run.name]
    assert viewer.canvas.grid.position(
        list(viewer.layers).index(viewer.layers["ground truth"]), viewer.layers
    ) == (0, 0)
    assert viewer.canvas.grid.position(
        list(viewer.layers).index(viewer.layers[run.name]), viewer.layers
    ) == (0, 1)
    viewer.layers["ground truth"].contrast_limits = (0, 0.5)
    assert tuple(viewer.layers[run.name].contrast_limits) == (0, 0.5)
    looks = viewer.layers[run.name].blending
    # every other view, and back
    view(desk, "difference")
    np.testing.assert_allclose(
        viewer.layers["difference"].data, run.frame.volume - truth, atol=1e-6
    )
    view(desk, "swipe")
    dock.swipe.setValue(25)
    swiped = viewer.layers["swipe"].data
    np.testing.assert_array_equal(swiped[..., :8], truth[..., :8])
    np.testing.assert_array_equal(swiped[..., 8:], run.frame.volume[..., 8:])
    view(desk, "blink")
    states = set()
    for _ in range(12):
        desk.qtbot.wait(120)
        states.add((viewer.layers["ground truth"].visible, viewer.layers[run.name].visible))
    assert states == {(True, False), (False, True)}
    view(desk, "overlay")
    assert viewer.layers[run.name].blending == "additive"
    desk.click(dock.sums_button)
    desk.until(lambda: "depth sum · difference" in viewer.layers)
    np.testing.assert_allclose(
        viewer.layers["depth sum · ground truth"].data, truth.sum(axis=0), rtol=1e-5
    )
    desk.click(dock.back_button)
    assert not viewer.canvas.grid.enabled
    assert not [n for n in ("swipe", "difference", "depth sum · difference") if n in viewer.layers]
    assert viewer.layers[run.name].blending == looks


def test_profile_patterns_and_another_run(compared):
    desk, run = compared
    dock = desk.compare
    desk.click(dock.depth_profile.pick_button)
    event = type("Click", (), {"button": 1, "position": (0.0, 3.2, 3.2)})
    desk.viewer.mouse_drag_callbacks[-1](desk.viewer, event)
    assert len(dock.depth_profile.plot.lines) == 2
    assert dock.depth_profile.plot.getPlotItem().legend is None  # it lay on the curves
    assert all(layer.name in dock.depth_profile.key.text() for layer in dock._both())
    depth, value = dock.depth_profile.plot.lines[1].getData()
    np.testing.assert_allclose(depth, [0.8, 2.4, 4.0, 5.6])
    assert value.max() <= run.frame.volume.max()
    assert "(3.20, 3.20) Å" in dock.depth_profile.where.text()
    desk.click(dock.depth_profile.pick_button)
    assert dock.depth_profile.clicked not in desk.viewer.mouse_drag_callbacks
    dock.patterns.columns_box.setMaximum(8)
    dock.patterns.columns_box.setValue(4)
    desk.click(dock.patterns.button)
    desk.until(lambda: "misfit" in dock.patterns.misfit.text())
    assert "electrons measured" in dock.patterns.misfit.text()
    np.testing.assert_allclose(
        dock.patterns.measured.image.image,
        np.sqrt(np.asarray(desk.session.data.pattern(0, 4))),
        rtol=1e-6,
    )
    assert dock.patterns.modelled.image.image.shape == (32, 32)
    other = desk.run(seed=3)
    choose(dock.reference, run.name)
    choose(dock.test, other.name)
    desk.click(dock.compare_button)
    desk.idle()
    assert float(dock.table.item(0, 0).text()) < 1
    assert dock.table.item(6, 0).text() == "–"  # no truth, no misfit


def test_without_truth_the_dock_says_so_and_shows_what_it_can(desk):
    desk.take(small_data(truth=False))
    assert "no ground truth" in desk.compare.note.text()
    assert not desk.compare.compare_button.isEnabled()
    run = desk.run()
    desk.compare.depth_profile.pick(3.2, 3.2)
    assert len(desk.compare.depth_profile.plot.lines) >= 1
    choose(desk.compare.test, run.name)
    desk.click(desk.compare.patterns.button)
    desk.until(lambda: "misfit" in desk.compare.patterns.misfit.text())


def test_mean_and_spread_of_several_samples(desk):
    desk.take()
    run = desk.run(samples=3)
    dock = desk.compare
    choose(dock.test, run.name)
    assert "3 samples" in dock.spread.note.text()
    desk.click(dock.spread.spread_button)
    shown = [layer.name for layer in desk.viewer.layers if layer.visible]
    assert shown == [run.name, f"{run.name} · spread"]
    np.testing.assert_array_equal(
        desk.viewer.layers[f"{run.name} · spread"].data, run.frame.arrays["std"]
    )
    desk.click(dock.spread.agreement_button)
    assert desk.viewer.layers[f"{run.name} · agreement"].visible
    desk.click(dock.back_button)
    assert [layer.name for layer in desk.viewer.layers if layer.visible] == [run.name]
    assert not desk.viewer.canvas.grid.enabled


SUFFIXES = [
    *(".tif", ".h5", ".npy"),
    *([".zarr"] if available("zarr") and available("ome_zarr") else []),
    *([".mrc"] if available("mrcfile") else []),
]


def test_every_format_comes_back_equal(desk, tmp_path):
    from napari_mepdiff.specimen.volume import Volume

    rng = np.random.default_rng(0)
    array = rng.random((4, 12, 16)).astype(np.float32)
    volume = Volume(array, (1.6, 0.2, 0.25), (0, 1.0, 2.0), energy=300.0, provenance={"seed": 5})
    desk.workspace.book.add_volume(volume, "mine")
    desk.session.change("export", folder=str(tmp_path))
    for number, suffix in enumerate(SUFFIXES, 1):
        desk.session.change("export", format=suffix)
        desk.export.tick("mine")
        desk.click(desk.export.export_button)
        desk.until(lambda number=number: len(desk.session.exported) == number)
        path = Path(desk.session.exported[-1])
        assert path.suffix == suffix
        back = load_volume(path)
        np.testing.assert_array_equal(back.array, volume.array)
        assert back.voxel_size == pytest.approx(volume.voxel_size)
        record = json.loads(path.with_name(path.name + ".json").read_text())
        assert record["provenance"]["seed"] == 5
        # reopened through the dock, it is the same layer again
        layers = len(desk.viewer.layers)
        desk.click(desk.export.written.reopen_button)
        desk.until(lambda layers=layers: len(desk.viewer.layers) > layers)
        desk.idle()
        layer = desk.viewer.layers[-1]
        np.testing.assert_array_equal(layer.data, volume.array)
        np.testing.assert_allclose(layer.scale, volume.voxel_size)
        np.testing.assert_allclose(layer.translate, volume.origin)
        desk.viewer.layers.remove(layer)
        # never over another file, unless asked
        desk.export.tick("mine")
        desk.click(desk.export.export_button)
        assert "is there already" in desk.errors[-1]
        assert suffix in desk.errors[-1]


def test_parts_regions_and_units(desk, tmp_path):
    from napari_mepdiff.physics.optics import interaction_parameter
    from napari_mepdiff.specimen.volume import Volume

    array = np.random.default_rng(0).random((6, 20, 30)).astype(np.float32)
    desk.workspace.book.add_volume(
        Volume(array, (1.0, 0.5, 0.5), (0, 1.0, 2.0), energy=200.0), "mine"
    )
    dock = desk.export
    desk.click(dock.draw_button)
    region = desk.viewer.layers["region"]
    region.add_rectangles([[2.0, 4.0], [5.0, 8.0]])  # Å: rows 2…8, columns 4…12
    desk.session.change("export", folder=str(tmp_path), format=".h5", unit="V·Å", first=2, last=4)
    dock.tick("mine")
    assert "3 × 7 × 9 voxels" in dock.what.text()
    desk.click(dock.export_button)
    desk.until(lambda: bool(desk.session.exported))
    back = load_volume(desk.session.exported[-1])
    np.testing.assert_allclose(
        back.array, array[2:5, 2:9, 4:13] / interaction_parameter(200), rtol=1e-5
    )
    assert back.unit == "V·Å"
    assert back.origin == pytest.approx((2.0, 2.0, 4.0))
    # a region outside is said
    region.data = [np.array([[-50, -50], [-50, -40], [-40, -40], [-40, -50]])]
    dock._summary()
    assert "outside" in dock.what.text()


@needs("imageio_ffmpeg")
def test_figure_film_and_screenshot(desk, tmp_path):
    import imageio.v3 as iio

    desk.take()
    run = desk.run()
    desk.session.change("export", folder=str(tmp_path))
    dock = desk.export
    dock.tick(run.name)
    for suffix in (".png", ".pdf"):
        choose(dock.figure.format, suffix)
        desk.click(dock.figure.button)
        desk.idle()
        assert dock.written.last_file.suffix == suffix
        assert dock.written.last_file.stat().st_size > 5000
    choose(dock.film.run, run.name)
    for suffix in (".gif", ".mp4"):
        choose(dock.film.format, suffix)
        desk.click(dock.film.button)
        desk.idle()
        assert len(iio.imread(dock.written.last_file)) == len(run.frames)
    desk.click(dock.figure.window_button)
    assert iio.imread(dock.written.last_file).shape[1] >= 1000
    assert not desk.errors


@needs("mrcfile")
def test_napari_saves_and_opens_by_the_manifest(desk, tmp_path):
    desk.take()
    run = desk.run()
    path = tmp_path / "saved.mrc"
    written = desk.viewer.layers[run.name].save(str(path), plugin="napari-mepdiff")
    assert written
    back = load_volume(path)
    np.testing.assert_array_equal(back.array, run.frame.volume)
    assert back.provenance["run"] == run.name
    desk.viewer.open(str(path), plugin="napari-mepdiff")
    desk.idle()
    layer = desk.viewer.layers[-1]
    assert layer.metadata[KEY]["provenance"]["run"] == run.name
