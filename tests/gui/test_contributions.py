"""What napari finds by the manifest: menus, palette, samples, readers; and the three clicks."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from napari_mepdiff.export.volumes import save_volume
from napari_mepdiff.gui import contributions
from napari_mepdiff.measurement.samples import NAMES, sample_path

from .conftest import pumped, shut, small_data


@pytest.fixture
def viewers(make_napari_viewer):
    """Makes viewers, and looks whether they go."""
    made = []

    def make():
        viewer = make_napari_viewer(show=True)
        made.append(weakref.ref(viewer))
        return viewer

    yield make
    assert not pumped(made), "a viewer is still alive after closing"


def panel(viewer, name):
    return next(w for n, w in viewer.window.dock_widgets.items() if n.startswith(name))


def close(viewer):
    from napari_mepdiff.gui.workspace import workspace_of

    workspace_of(viewer).close()
    shut(viewer)


def test_without_a_viewer_readers_return_layers(tmp_path):
    layer, options, kind = contributions.get_reader(str(sample_path("mos2")))(
        str(sample_path("mos2"))
    )[0]
    assert kind == "image"
    assert layer.ndim == 2
    assert options["units"] == ("angstrom", "angstrom")
    volume = small_data().truth
    save_volume(volume, tmp_path / "v.h5")
    layer, options, kind = contributions.read(str(tmp_path / "v.h5"))[0]
    np.testing.assert_array_equal(layer, volume.array)
    assert options["scale"] == pytest.approx((1.6, 0.2, 0.2))


def test_files_of_others_are_left_to_others(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "photo.tif", np.zeros((4, 4)))
    np.save(tmp_path / "flat.npy", np.zeros((4, 4)))
    assert contributions.get_reader(str(tmp_path / "photo.tif")) is None
    assert contributions.get_reader(str(tmp_path / "flat.npy")) is None
    assert contributions.get_reader(str(tmp_path / "nowhere.h5")) is None
    np.save(tmp_path / "scan.npy", np.zeros((2, 2, 8, 8)))
    assert contributions.get_reader(str(tmp_path / "scan.npy")) is not None


def test_every_sample_is_in_the_menu():
    from npe2 import PluginManifest

    from tests.conftest import ROOT

    manifest = PluginManifest.from_file(ROOT / "src" / "napari_mepdiff" / "napari.yaml")
    assert {s.key for s in manifest.contributions.sample_data} == set(NAMES)
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert hasattr(__import__(module, fromlist=[name]), name), command.id


def test_menus_are_napari_s_own_and_the_palette_has_every_command(viewers):
    from napari._app_model import get_app_model
    from napari._app_model.constants import MenuId
    from npe2 import PluginManifest

    from tests.conftest import ROOT

    manifest = PluginManifest.from_file(ROOT / "src" / "napari_mepdiff" / "napari.yaml")
    places = {str(m) for m in MenuId.contributables()} | {
        s.id for s in manifest.contributions.submenus
    }
    assert set(manifest.contributions.menus) <= places
    viewer = viewers()
    app = get_app_model()
    palette = {item.command.id for item in app.menus.get_menu(app.menus.COMMAND_PALETTE_ID)}
    for name in (
        "all",
        "start",
        "automatic",
        "pause",
        "single",
        "stop",
        "undo",
        "redo",
        "back",
        "data",
        "export",
    ):
        assert f"napari-mepdiff.{name}" in palette
    close(viewer)


def test_three_clicks_from_an_empty_napari_to_a_run(viewers, qtbot, prior_file):
    """File ▸ Open Sample ▸ SrTiO₃; Preview; Start."""
    from napari_mepdiff.gui.workspace import workspace_of

    viewer = viewers()
    viewer.open_sample("napari-mepdiff", "srtio3")  # one
    workspace = workspace_of(viewer)
    qtbot.waitUntil(lambda: workspace.session.findings is not None, timeout=30000)
    names = [n.split(" (")[0] for n in viewer.window.dock_widgets]
    assert set(contributions.DOCKS) <= set(names)
    qtbot.waitUntil(lambda: panel(viewer, "Reconstruct").dock is not None, timeout=30000)
    dock = panel(viewer, "Reconstruct").dock
    dock.setup.preview.click()  # two
    workspace.session.change_settings("dps", prior=prior_file)
    dock.start_button.click()  # three
    run = workspace.session.runs[-1]
    qtbot.waitUntil(lambda: run.frame is not None, timeout=30000)
    workspace.runner.stop()
    qtbot.waitUntil(lambda: not run.going_on, timeout=30000)
    assert run.name in viewer.layers
    close(viewer)


def test_dropped_files_keys_and_commands(viewers, qtbot, tmp_path, prior_file):
    from napari_mepdiff.gui.workspace import workspace_of
    from napari_mepdiff.measurement.formats import own as hdf5

    viewer = viewers()
    path = tmp_path / "small.h5"
    hdf5.save(small_data(), path)
    volume = tmp_path / "volume.h5"
    save_volume(small_data().truth, volume)
    viewer.open([str(path), str(volume)], plugin="napari-mepdiff")  # what a drop does
    workspace = workspace_of(viewer)
    session = workspace.session
    qtbot.waitUntil(
        lambda: session.findings is not None and not workspace.jobs.running, timeout=30000
    )
    assert session.path == str(path)
    assert "volume" in viewer.layers
    # commands of the palette do what the buttons do
    session.change_settings(
        "dps", prior=prior_file, guidance="newton", elements=(), steps=4000, evaluations=10
    )
    contributions.start(viewer)
    run = session.active
    qtbot.waitUntil(lambda: run.frame is not None and run.frame.step > 2, timeout=30000)
    contributions.pause(viewer)
    assert run.state == "paused"
    at = len(run.frames.records)
    contributions.single(viewer)
    qtbot.waitUntil(lambda: len(run.frames.records) == at + 1, timeout=30000)
    session.change_settings("dps", weight=2.0)
    contributions.undo(viewer)
    assert session.settings("dps").weight == 1.0
    contributions.redo(viewer)
    assert session.settings("dps").weight == 2.0
    before = run.frame.step
    contributions.back(viewer)
    qtbot.waitUntil(lambda: run.frame.step == max(0, before - 10), timeout=10000)
    contributions.stop(viewer)
    qtbot.waitUntil(lambda: not run.going_on, timeout=10000)
    # keys are bound to the same
    bound = {str(k) for k in viewer.keymap}
    assert {"Alt+P", "Alt+R", "Alt+S", "Alt+Z"} <= bound
    close(viewer)


def test_the_last_session_comes_back(viewers, qtbot, tmp_path, monkeypatch):
    from napari_mepdiff.gui.workspace import workspace_of
    from napari_mepdiff.measurement.formats import own as hdf5

    monkeypatch.setenv("MEPDIFF_CONFIG", str(tmp_path / "last.json"))
    path, volume = tmp_path / "small.h5", tmp_path / "exported.h5"
    hdf5.save(small_data(), path)
    save_volume(small_data().truth, volume)
    viewer = viewers()
    workspace = workspace_of(viewer)
    workspace.files.open(str(path))
    qtbot.waitUntil(lambda: workspace.session.findings is not None, timeout=30000)
    workspace.session.change("preparation", rotation=3.0)
    workspace.session.change_settings("dps", weight=0.5)
    workspace.session.note_exported([volume])
    close(viewer)

    viewer = viewers()
    contributions.show_docks(viewer, ("Data",))
    qtbot.waitUntil(lambda: panel(viewer, "Data").dock is not None, timeout=30000)
    dock = panel(viewer, "Data").dock
    workspace = workspace_of(viewer)
    assert workspace.session.settings("dps").weight == 0.5
    dock.again.click()
    qtbot.waitUntil(
        lambda: workspace.session.findings is not None and not workspace.jobs.running, timeout=30000
    )
    assert workspace.session.data.calibration.rotation == 3.0
    assert "exported" in viewer.layers
    close(viewer)
