"""Preparation: the same operations as on the dataset itself, in a repeatable record."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.measurement.preparation import Preparation
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.physics.optics import wavelength


def some_data(**calibration) -> FourDSTEM:
    rng = np.random.default_rng(0)
    return FourDSTEM(rng.poisson(5, (3, 4, 16, 16)).astype(np.float32), Calibration(**calibration))


def test_nothing_asked_for_changes_nothing():
    data = open_sample("srtio3")
    same = Preparation().apply(data)
    assert same.calibration == data.calibration
    assert same.positions is data.positions
    assert Preparation().changed == {}


def test_orientation_is_that_of_the_dataset():
    data = some_data()
    out = Preparation(transpose=True, flip_y=True, flip_x=True, bin=2).apply(data)
    expected = data.transpose_detector().flip_detector(True, True).bin_detector(2)
    np.testing.assert_array_equal(np.asarray(out.data), np.asarray(expected.data))


def test_pixel_in_mrad_needs_an_energy_and_gives_inverse_angstrom():
    out = Preparation(energy=300, pixel_mrad=0.8).apply(some_data())
    assert out.calibration.pixel_size == pytest.approx(0.8e-3 / wavelength(300))
    with pytest.raises(DataError, match="energy"):
        Preparation(pixel_mrad=0.8).apply(some_data())


def test_a_changed_energy_keeps_the_pixel_of_the_file_unless_told():
    data = some_data(energy=300, pixel_size=0.05)
    assert Preparation(energy=200).apply(data).calibration.pixel_size == 0.05
    assert Preparation(energy=200, pixel_mrad=1.0).apply(
        data
    ).calibration.pixel_mrad == pytest.approx(1.0)


def test_one_step_fills_the_other():
    assert Preparation(scan_step_y=0.4).apply(some_data()).calibration.scan_step == (0.4, 0.4)
    assert Preparation(scan_step_x=0.3).apply(
        some_data(scan_step=(0.5, 0.5))
    ).calibration.scan_step == (0.5, 0.3)


def test_aberrations_replace_the_stored_probe():
    data = open_sample("srtio3")
    out = Preparation(overfocus=120, C12=30).apply(data)
    assert out.optics is not None
    assert (out.optics.overfocus, out.optics.C12, out.optics.C30) == (
        120,
        30,
        data.illumination().C30,
    )
    assert out.probe is None


def test_centre_brings_the_disk_to_the_middle():
    counts = np.zeros((2, 2, 16, 16), np.float32)
    counts[..., 10, 7] = 5
    out = Preparation(centre_y=10, centre_x=7).apply(FourDSTEM(counts))
    assert np.asarray(out.data)[0, 0, 8, 8] == 5


@pytest.mark.parametrize("bad", [{"energy": -1}, {"bin": 0}, {"semi_angle": 0}, {"nonsense": 1}])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValidationError):
        Preparation(**bad)
