"""From a bare file to a nearly right microscope."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.microscope.disk import fit_disk
from napari_mepdiff.microscope.estimate import estimate
from napari_mepdiff.physics.optics import Optics

from .thin import ANGLE, ENERGY, PIXEL, K, record


@pytest.fixture(scope="module")
def data() -> FourDSTEM:
    return record(5, rotation=-60.0)


def test_a_bare_file_is_calibrated(data):
    """Told: energy, semi-angle, step. Found: pixel, dose, rotation, defocus."""
    told = Calibration(energy=ENERGY, semi_angle=ANGLE, scan_step=(1.0, 1.0))
    seen: list[float] = []
    found = estimate(FourDSTEM(np.asarray(data.data), told), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    calibration = found.calibration(told)
    assert calibration.pixel_size == pytest.approx(1 / (K * PIXEL), rel=0.02)
    assert calibration.dose == pytest.approx(1e4, rel=0.02)
    optics = found.optics(Optics(energy=ENERGY, semi_angle=ANGLE, overfocus=0.0))
    assert abs(abs(optics.overfocus) - 250) < 3 * found["C10"].error
    right = -60 if optics.overfocus > 0 else 120
    assert calibration.rotation == pytest.approx(right, abs=3 * found["scan rotation"].error)
    assert "can be taken over" in found["C10"].verdict
    assert json.loads(json.dumps(found.as_dict()))["values"][0]["name"] == "disk centre y"
    with pytest.raises(KeyError):
        found["coma"]


def test_a_wrong_pixel_is_said(data):
    wrong = data.calibrated(pixel_size=1.2 / (K * PIXEL))
    assert "differs" in estimate(wrong)["semi-angle"].verdict
    assert estimate(data)["semi-angle"].verdict == "agrees"


def test_what_cannot_be_estimated_leaves_the_rest(data):
    single = estimate(FourDSTEM(np.asarray(data.data[:1, :1]), data.calibration))
    assert single.parallax is None
    assert "at least 8 × 8" in single.notes[0]
    assert single["scan rotation"].value is None
    assert single["disk radius"].value == pytest.approx(data.calibration.disk_radius, abs=0.6)
    assert single.calibration(data.calibration) is not None


def test_patterns_that_are_none_are_refused(data):
    values = np.asarray(data.data).astype(np.float32)
    values[0, 0, 3, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        estimate(FourDSTEM(values, data.calibration))
    flat = np.random.default_rng(0).poisson(5, (8, 8, 32, 32)).astype("u2")
    with pytest.raises(DataError, match="no bright disk"):
        estimate(FourDSTEM(flat))
    with pytest.raises(DataError, match="no bright disk"):
        estimate(FourDSTEM(np.zeros((8, 8, 32, 32), "u2")))


def test_who_stops_is_heard(data):
    def stop(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        estimate(FourDSTEM(np.asarray(data.data)), stop)


def test_a_disk_is_found_between_pixels():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:64, :64]
    for _ in range(3):
        cy, cx, r = rng.uniform(28, 35), rng.uniform(28, 35), rng.uniform(9, 20)
        far = np.hypot(y - cy, x - cx)
        found = fit_disk(rng.poisson(400 / (1 + np.exp((far - r) / 0.6))).astype(float))
        assert np.hypot(found.centre[0] - cy, found.centre[1] - cx) < 3 * found.centre_error
        assert abs(found.radius - r) < 3 * found.radius_error < 1
