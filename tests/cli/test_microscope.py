"""`mepdiff microscope`, and `mepdiff reconstruct --microscope` with files of other packages."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from napari_mepdiff.measurement.formats.own import save
from napari_mepdiff.microscope.files import load_microscope, save_microscope
from napari_mepdiff.microscope.files.found import OWN
from napari_mepdiff.microscope.state import MicroscopeState
from napari_mepdiff.physics.optics import Optics, probe_from_parameters

from ..microscope import foreign
from ..microscope.thin import record
from .terminal import mepdiff

OPTICS = Optics(energy=200.0, semi_angle=16.0, overfocus=250.0, C30=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("microscope")
    data = record(6, OPTICS, scan=(4, 5))
    save(data, folder / "thin.h5")
    scan = data.scan_positions()
    about = scan - scan.mean(axis=0)
    probe = probe_from_parameters(OPTICS, data.detector_shape, data.real_pixel).numpy()
    state = MicroscopeState(
        probe * 100, scan + 0.02 * about, data.real_pixel, 200.0, tilt=(1.0, -2.0), optics=OPTICS,
        errors={"C10": 2.0},
    )  # fmt: skip
    state.save(folder / "own.h5")
    save_microscope(state, folder / "model.hdf5", "ptyrad")
    with h5py.File(folder / "model.hdf5", "r+") as file:
        del file[OWN]  # as PtyRAD would have written it
    foreign.py4dstem(folder / "py4.h5")
    return folder


def _values(*arguments, cwd):
    code, said = mepdiff("microscope", *arguments, "--json", cwd=cwd)
    assert code == 0, said
    found = json.loads(said)
    return found, {v["name"]: v for v in found["values"]}


def test_told_and_refined_stand_in_one_table(folder):
    code, said = mepdiff("microscope", "own.h5", "--data", "thin.h5", cwd=folder)
    assert code == 0, said
    for word in ("told", "refined", "C10", "250.0 ± 2.0", "scan scale y", "tilt y", "20 positions"):
        assert word in said


def test_a_file_alone_tells_what_it_knows(folder):
    found, values = _values("py4.h5", cwd=folder)
    assert found["format"] == "py4dstem"
    assert "scan scale y" not in values
    assert values["C10"]["told"] == 80.0
    assert values["C10"]["value"] == pytest.approx(80, abs=1)
    assert values["phi12"]["value"] == pytest.approx(np.degrees(foreign.PHI12), abs=2)
    assert "turned the scan by 28.65°" in found["notes"][0]


def test_a_foreign_scan_is_held_against_that_of_the_data(folder):
    found, values = _values("model.hdf5", "--data", "thin.h5", cwd=folder)
    assert found["format"] == "ptyrad"
    for axis in "yx":
        assert values[f"scan scale {axis}"]["value"] == pytest.approx(2.0, abs=1e-3)
    assert values["tilt x"]["value"] == pytest.approx(-2.0)


def test_told_estimated_and_refined_stand_side_by_side(folder, tmp_path):
    data = record(6, OPTICS, scan=(12, 12))
    np.save(tmp_path / "bare.npy", np.asarray(data.data).reshape(-1, *data.detector_shape))
    probe = probe_from_parameters(OPTICS, data.detector_shape, data.real_pixel).numpy()
    state = MicroscopeState(
        probe * 100, data.scan_positions(), data.real_pixel, 200.0, optics=OPTICS,
        errors={"C10": 2.0},
    )  # fmt: skip
    state.save(tmp_path / "own.h5")
    asked = (
        "own.h5", "--data", "bare.npy", "--scan", "12,12", "--step", "1", "--energy", "200",
        "--semi-angle", "16", "--overfocus", "240", "--estimate",
    )  # fmt: skip
    _found, values = _values(*asked, cwd=tmp_path)
    focus = values["C10"]
    assert (focus["told"], focus["refined"], focus["refined_error"]) == (240, 250, 2)
    assert focus["estimated"] == pytest.approx(250, abs=3 * focus["estimated_error"])
    assert focus["unit"] == "Å"
    assert "differs from what was told by +10" in focus["verdict"]
    assert values["detector pixel"]["estimated"] == pytest.approx(
        data.calibration.pixel_size, rel=0.03
    )
    assert values["semi-angle"]["told"] == 16
    assert values["tilt y"]["estimated"] is None
    code, said = mepdiff("microscope", *asked, cwd=tmp_path)
    assert code == 0, said
    for word in ("told", "estimated", "refined", "unit", "240", "250 ± 2", "Detector and dose"):
        assert word in said


def test_a_file_is_converted_and_nothing_is_overwritten_unasked(folder, tmp_path):
    out = tmp_path / "out.hdf5"
    code, said = mepdiff("microscope", folder / "py4.h5", "-o", out, "--format", "ptyrad")
    assert code == 0, said
    before, after = load_microscope(folder / "py4.h5"), load_microscope(out)
    assert np.abs(after.probe - before.probe).max() <= 1e-5 * np.abs(before.probe).max()
    assert np.abs(after.positions - before.positions).max() < 1e-5
    assert after.tilt == pytest.approx(before.tilt)
    code, said = mepdiff("microscope", folder / "py4.h5", "-o", out)
    assert code == 1
    assert "--overwrite" in said


def test_another_measurement_is_refused(folder, tmp_path):
    save(record(6, scan=(3, 3)), tmp_path / "other.h5")
    code, said = mepdiff("microscope", folder / "own.h5", "--data", tmp_path / "other.h5")
    assert code == 1
    assert "positions are 20, the scan has 9" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("own.h5", "--format", "ptyrad"), "-o"),
        (("own.h5", "-o", "x.h5", "--format", "abtem"), "own, ptyrad, py4dstem"),
        (("own.h5", "--scan", "4,5"), "--data"),
        (("own.h5", "--estimate"), "--data"),
        (("own.h5", "--energy", "200"), "--data"),
        (("thin.h5",), "it is a measurement"),
        (("none.h5",), "no such file"),
    ],
)
def test_what_cannot_be_is_said(folder, arguments, said):
    code, words = mepdiff("microscope", *arguments, cwd=folder)
    assert code != 0
    assert said in words


def test_a_run_begins_from_a_ptyrad_result(folder, tmp_path):
    """The positions count from PtyRAD's canvas: laid elsewhere, no window would see the scan."""
    out = tmp_path / "volume.h5"
    code, said = mepdiff(
        "reconstruct", folder / "thin.h5", "-o", out, "--solver", "adam", "--slices", 1,
        "--slice-thickness", 10, "--set", "iterations=2", "--microscope", folder / "model.hdf5",
    )  # fmt: skip
    assert code == 0, said
    from napari_mepdiff.session.recipe import Attached, Opening, Recipe

    recipe = Recipe(
        opening=Opening(path=str(folder / "thin.h5")), solver="adam", slices=1, slice_thickness=10,
        microscope=Attached.of(folder / "model.hdf5"),
    )  # fmt: skip
    data = recipe.opening.open()
    problem = recipe.problem(data)
    places = problem.positions + np.array(problem.origin[1:])
    assert np.abs(places.mean(axis=0) - data.scan_positions().mean(axis=0)).max() < 1e-6
    assert problem.tilt == pytest.approx((1.0, -2.0))
