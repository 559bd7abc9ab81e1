import numpy as np
import pytest
import torch

from napari_mepdiff.evaluation.judge import data_deviance
from napari_mepdiff.measurement.simulate import Conditions, simulate
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.specimen.cif import load_crystal

from ..conftest import CRYSTALS
from ..needs import needs

SMALL = {
    "scan": Raster(shape=(4, 4), step=(1.6, 1.6)),
    "slices": 4,
    "field": (32, 32),
    "detector": 64,
    "optics": Optics(overfocus=60),
    "zone_axis": "c",
}


@pytest.fixture(scope="module")
def crystal():
    return load_crystal(CRYSTALS / "SrTiO3.cif")


@needs("abtem")
def test_dose_noise_and_seed(crystal):
    a, b, c = (simulate(crystal, Conditions(**SMALL, seed=s, vacancies=0)) for s in (0, 0, 1))
    assert np.array_equal(np.asarray(a.data), np.asarray(b.data))
    assert not np.array_equal(np.asarray(a.data), np.asarray(c.data))
    assert np.array_equal(a.truth.array, c.truth.array)
    assert np.asarray(a.data).sum(axis=(2, 3)).mean() == pytest.approx(1e6 * 1.6**2, rel=0.01)
    assert data_deviance(a.truth, a) == pytest.approx(1, abs=0.03)
    free = simulate(crystal, Conditions(**SMALL, dose=None, vacancies=0))
    assert free.data.dtype == np.float32
    assert np.asarray(free.data).sum(axis=(2, 3)).max() <= 1.0001


@needs("abtem")
def test_vibration_and_partial_coherence_make_data_that_the_model_does_not_fit(crystal):
    seen = []
    still = simulate(crystal, Conditions(**SMALL, seed=2))
    for extra in (
        {"vibration": 0.12, "members": 6},
        {"focal_spread": 40.0, "members": 6},
        {"source_size": 0.35, "members": 6},
    ):
        moved = simulate(
            crystal,
            Conditions(**SMALL, seed=2, **extra),
            lambda done, total: seen.append((done, total)),
        )
        assert np.array_equal(moved.truth.array, still.truth.array)
        assert data_deviance(moved.truth, moved) > 1.15
    assert seen[-1] == (6, 6)


@needs("abtem")
def test_extended_geometry_has_a_canvas_that_the_windows_fit(crystal):
    data = simulate(crystal, Conditions(**{**SMALL, "geometry": "extended"}))
    problem = Problem.from_data(data)
    assert problem.boundary == "extended"
    assert problem.shape == data.truth.shape
    at_truth = data_deviance(data.truth, data)
    assert at_truth < 4  # a window this small cuts the probe's tails
    half = torch.from_numpy(data.truth.array * 0.5).numpy()
    from dataclasses import replace

    assert data_deviance(replace(data.truth, array=half), data) > 2 * at_truth


def test_conditions_that_contradict_are_refused(crystal):
    with pytest.raises(ValueError, match="multiple of the periodic field"):
        simulate(crystal, Conditions(**{**SMALL, "field": (30, 30)}))
    with pytest.raises(ValueError, match="square pixels"):
        simulate(crystal, Conditions(**SMALL, voxel_size=(1.6, 0.2, 0.25)))
    with pytest.raises(ValueError, match="greater than 0"):
        Conditions(dose=-3)


def test_the_problem_names_what_is_missing():
    from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM

    from .files import patterns

    with pytest.raises(DataError, match="scan step"):
        Problem.from_data(
            FourDSTEM(patterns(), Calibration(energy=300, semi_angle=6, pixel_size=0.08))
        )
    known = Calibration(energy=300, semi_angle=6, pixel_size=0.08, scan_step=(0.5, 0.5))
    good = FourDSTEM(patterns(np.uint16, (4, 5, 16, 16)), known)
    problem = Problem.from_data(good, slices=3, slice_thickness=2.0)
    assert problem.boundary == "extended"
    assert problem.shape[0] == 3
    problem.likelihood()
    with pytest.raises(DataError, match="do not fit together"):
        Problem.from_data(good, slices=3, slice_thickness=[1.0, 2.0])
    with pytest.raises(DataError, match="the probe is"):
        Problem.from_data(good, probe=np.ones((8, 8), complex))
