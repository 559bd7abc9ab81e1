"""Comparisons, profiles and modelled patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.evaluation.compare import compare, depth_profile, patterns_at
from napari_mepdiff.evaluation.metrics import psnr, ssim
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.specimen.volume import Volume


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    a = rng.random((4, 12, 12)).astype(np.float32)
    return Volume(a, energy=300.0), Volume(
        a + 0.1 * rng.random(a.shape).astype(np.float32), energy=300.0
    )


def test_comparison_is_the_metrics_slice_by_slice(pair):
    a, b = pair
    found = compare(a, b)
    np.testing.assert_allclose(found.difference, b.array - a.array)
    for n in range(4):
        assert found.psnr[n] == pytest.approx(psnr(a.array[n], b.array[n]))
        assert found.ssim[n] == pytest.approx(ssim(a.array[n], b.array[n]))
    assert found.scores.ssim == pytest.approx(ssim(a.array, b.array))


def test_units_are_converted_before_comparing(pair):
    a, b = pair
    found = compare(a, b.to_unit("V·Å"))
    np.testing.assert_allclose(found.test.array, b.array, rtol=1e-5)


def test_another_grid_is_refused_in_plain_words(pair):
    a, b = pair
    with pytest.raises(ValueError, match="only volumes of one grid"):
        compare(a, Volume(b.array[:3]))


def test_depth_profile_finds_the_atom(pair):
    array = np.zeros((5, 20, 20), np.float32)
    array[3, 8, 12] = 2.0
    volume = Volume(array, (1.5, 0.2, 0.25), origin=(0, 1.0, 2.0))
    depth, value = depth_profile(volume, 1.0 + 8 * 0.2, 2.0 + 12 * 0.25, radius=0.0)
    np.testing.assert_allclose(depth, [0.75, 2.25, 3.75, 5.25, 6.75])
    np.testing.assert_allclose(value, [0, 0, 0, 2, 0])
    with pytest.raises(ValueError, match="outside"):
        depth_profile(volume, 0.0, 0.0)


def test_the_true_volume_models_the_measured_pattern():
    data = open_sample("srtio3")
    measured, model = patterns_at(data.truth, data, 5, 7)
    np.testing.assert_array_equal(measured, np.asarray(data.pattern(5, 7)))
    assert model.shape == measured.shape
    bright = model > 20
    deviation = (measured - model)[bright] / np.sqrt(model[bright])
    assert abs(deviation.std() - 1) < 0.15  # shot noise
    assert abs(deviation.mean()) < 0.1


def test_patterns_of_a_strange_volume_are_refused():
    data = open_sample("srtio3")
    with pytest.raises(ValueError, match="does not belong"):
        patterns_at(replace(data.truth, array=data.truth.array[:, :32]), data, 0, 0)
    with pytest.raises(ValueError, match="outside the scan"):
        patterns_at(data.truth, data, 99, 0)
