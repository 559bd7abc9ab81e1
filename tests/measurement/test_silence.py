"""What cannot be right is never passed over: data that once led to *nothing wrong was found*."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.measurement.checks import require_valid, validate
from napari_mepdiff.measurement.dataset import DataError, FourDSTEM
from napari_mepdiff.measurement.preparation import Preparation
from napari_mepdiff.measurement.samples import NAMES, open_sample
from napari_mepdiff.measurement.values import quantum, scatter


@pytest.fixture(scope="module")
def sample() -> FourDSTEM:
    return open_sample("srtio3").crop_scan(slice(0, 12), slice(0, 12)).loaded()


@pytest.fixture(scope="module")
def counts(sample) -> np.ndarray:
    return np.asarray(sample.data)


def like(sample: FourDSTEM, values: np.ndarray, **fields: object) -> FourDSTEM:
    """The same measurement with other values, and without a dose that could betray them."""
    calibration = sample.calibration.model_copy(update={"dose": None})
    return replace(sample, data=values, calibration=calibration, **fields)


def codes(data: FourDSTEM) -> set[str]:
    return {f.code for f in validate(data)}


@pytest.mark.parametrize("name", NAMES)
def test_good_measurements_are_not_doubted(name):
    """All samples, from 260 electrons a pattern to 260 000."""
    assert validate(open_sample(name)) == []


@pytest.mark.parametrize(
    ("change", "code", "advice"),
    [
        (lambda a: (a * 37).astype("f4"), "gain", "divide by 37"),
        (lambda a: a.astype("u4") * 37, "gain", "divide by 37"),
        (lambda a: (a * 22.4).astype("f4"), "gain", "divide by 22.4"),
        (lambda a: (a / a.sum((2, 3)).mean()).astype("f4"), "no-counts", "normalised"),
        (lambda a: (a / a.max()).astype("f4"), "gain", "one|divide"),
        (
            lambda a: (a * 150 + np.random.default_rng(0).normal(0, 5, a.shape)).clip(0),
            "gain",
            "scatter",
        ),
    ],
)
def test_values_that_are_no_counts(sample, counts, change, code, advice):
    """Gains ended at 72 times the shot noise, normalised patterns at 0; neither was doubted."""
    found = [f for f in validate(like(sample, change(counts))) if f.code == code]
    assert found
    assert any(word in found[0].message for word in advice.split("|"))


def test_noise_free_patterns_are_named(sample, counts):
    """A simulation without Poisson noise, scaled to electrons."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(counts.astype(np.float32), (1.5, 1.5, 1.5, 1.5)) + 0.01
    assert "smooth" in codes(like(sample, smooth))


def test_the_advised_gain_works(sample, counts):
    scaled = like(sample, (counts * 37.5).astype("f4"))
    mended = Preparation(gain=37.5).apply(scaled)
    np.testing.assert_allclose(np.asarray(mended.data), counts, rtol=1e-6)
    assert codes(mended) == set()
    normalised = like(sample, (counts / counts.sum((2, 3)).mean()).astype("f4"))
    with pytest.raises(DataError, match="no counts of electrons"):
        require_valid(normalised)


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        ((slice(32, 33), slice(40, 41)), 65535, "saturated"),
        ((slice(None), slice(60, 62)), 65535, "saturated"),
        ((slice(60, 61), slice(None)), 0, "dead-pixels"),
        ((slice(70, 71), slice(71, 72)), 5000, "hot-pixels"),
    ],
)
def test_pixels_that_do_not_measure(sample, counts, place, value, code):
    """Two pixels at 65535 ended at 21883 times the shot noise, a dead row at 4.25."""
    wrong = counts.copy()
    wrong[:, :, *place] = value
    data = like(sample, wrong)
    assert code in codes(data)
    mended = Preparation(repair_pixels=True).apply(data)
    assert codes(mended) == set()
    assert (mended.mask[place] == 0).mean() > 0.5
    masked = replace(data, mask=mended.mask)  # a mask alone does as well
    assert not codes(masked) & {"saturated", "dead-pixels", "hot-pixels"}


def test_undefined_and_negative_values_can_be_put_right(sample, counts):
    """*Mask or repair them*, *clip*: what is advised must be possible without programming."""
    wrong = counts.astype(np.float32)
    wrong[3, 4, 20, 20] = np.nan
    wrong[5, 5, 90, 9] = np.inf
    data = like(sample, wrong)
    assert "nan" in codes(data)
    mended = Preparation(repair_pixels=True).apply(data)
    assert codes(mended) == set()
    assert np.isfinite(np.asarray(mended.data)).all()
    noisy = like(sample, counts + np.random.default_rng(0).normal(0, 0.05, counts.shape))
    assert "negative" in codes(noisy)
    assert "negative" not in codes(Preparation(clip_negative=True).apply(noisy))


@pytest.mark.parametrize("scan", [5, 10])
def test_a_strongly_scattering_crystal_is_no_fault_of_the_detector(scan):
    """Sharp rims and strong contrast are neither hot pixels nor a gain."""
    pytest.importorskip("abtem")
    from ase.build import bulk

    from napari_mepdiff.measurement.simulate import Conditions, simulate
    from napari_mepdiff.physics.optics import Optics
    from napari_mepdiff.physics.scan import Raster

    raster = Raster(shape=(scan, scan), step=(1.28, 1.28))
    conditions = Conditions(
        optics=Optics(overfocus=60), scan=raster, detector=64, field=(32, 32), slices=4
    )
    data = simulate(bulk("Au", "fcc", a=4.08, cubic=True), conditions)
    assert codes(data) == set()
    # the same with a little noise of the read-out, in electrons
    noise = np.random.default_rng(0).normal(0, 0.05, data.shape)
    assert codes(replace(data, data=(np.asarray(data.data) + noise).clip(0))) == set()


def test_a_clipped_detector_is_named(sample, counts):
    """A 7-bit detector in bright parts of the disk: brightness is lost without a trace."""
    assert "clipped" in codes(like(sample, np.minimum(counts, 127)))
    assert "clipped" not in codes(like(sample, counts))


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"energy": 200.0}, "energy of 300 kV"),
        ({"energy": 80.0}, "energy of 300 kV"),
        ({"semi_angle": 20.6}, "semi-angle of 21.4 mrad"),
        ({"pixel_size": 0.0390625 * 1.38}, "pixel of 0.769 mrad"),
        ({"pixel_size": 0.0390625 * 1.04}, "pixel of 0.769 mrad"),
        ({"pixel_size": 0.0390625 * 0.7}, "pixel of 0.769 mrad"),
    ],
)
def test_a_disk_of_another_size_than_the_calibration_says(sample, fields, hint):
    """Pixel sizes 30 % off and 200 kV for 300 led to 8 and 56 times the shot noise, unnamed."""
    found = [f for f in validate(sample.calibrated(**fields)) if f.code == "disk-size"]
    assert found
    assert hint in found[0].message


def test_a_dose_that_contradicts_the_counts(sample):
    assert "dose" in codes(sample.calibrated(dose=2.7e4))
    assert "dose" in codes(sample.calibrated(scan_step=(1.6, 1.6)))


def test_defocus_that_nobody_gave_is_said(sample):
    """Empty overfocus was taken as 0 Å without a word, and the run ended at 9 × noise."""
    bare = replace(sample, optics=None)
    assert codes(bare) == {"no-defocus"}
    assert codes(Preparation(overfocus=200, C30=5000).apply(bare)) == set()


def test_positions_that_cannot_be_right(sample):
    places = sample.scan_positions()
    assert "positions-step" in codes(replace(sample, positions=places / 10))
    assert "positions-equal" in codes(replace(sample, positions=places.round(0)))
    apart = replace(sample, positions=places * 60)
    assert "step-larger-than-probe" in codes(apart)
    raster = replace(sample, positions=None).calibrated(scan_step=(6.5, 6.5), dose=None)
    assert codes(raster) == {"little-overlap"}


def test_dropped_frames_are_a_warning_with_number_and_place(sample, counts):
    """One dark frame forbade every run, and neither dock nor command line could leave it out."""
    wrong = counts.copy()
    wrong[2, 3] = 0
    wrong[7, 1] = 0
    found = validate(like(sample, wrong))
    assert [f.code for f in found] == ["zero-patterns"]
    assert found[0].level == "warning"
    assert "2 of 144" in found[0].message
    assert "(2, 3), (7, 1)" in found[0].message
    # axes taken for each other: most "patterns" are empty
    wrong[:8] = 0
    (most,) = (f for f in validate(like(sample, wrong)) if f.code == "zero-patterns")
    assert most.level == "error"
    assert "order of the axes" in most.message


def test_empty_patterns_are_chance_where_few_electrons_fall():
    """At three electrons a pattern, five in a hundred are empty as they should be."""
    rng = np.random.default_rng(0)
    few = rng.poisson(3 / 256, (20, 20, 16, 16)).astype("u2")
    assert (few.sum((2, 3)) == 0).any()
    assert "zero-patterns" not in codes(FourDSTEM(few))


def test_steps_and_scatter_of_values():
    rng = np.random.default_rng(0)
    n = rng.poisson(2.0, (40, 16, 16))
    assert quantum(n) == 1
    assert quantum(n * 37.5) == pytest.approx(37.5)
    assert quantum(n * 3e-6) == pytest.approx(3e-6)
    assert quantum(n * 2 + (n > 0) * 2) == 2  # no single electron among them
    assert quantum(n + rng.normal(0, 0.1, n.shape)) is None
    assert scatter(n) == pytest.approx((0.8, 0.8), abs=0.3)
    assert scatter(n * 10) == pytest.approx((8, 8), abs=3)
