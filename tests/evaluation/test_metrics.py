import numpy as np
import pytest

from napari_mepdiff.evaluation.metrics import (
    atoms_in_slice,
    correlation,
    depth_correlation,
    evaluate,
    normalise,
    psnr,
    ssim,
)
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.physics.misfit import expected_deviance, relative_deviance
from napari_mepdiff.specimen.volume import Volume

VOXEL = (1.6, 0.2, 0.2)


@pytest.fixture(scope="module")
def sample():
    return open_sample("mos2")


def test_truth_against_itself_is_perfect(sample):
    s = evaluate(sample.truth, sample.truth, sample.truth_atoms)
    assert s.ssim == pytest.approx(1)
    assert s.psnr == np.inf
    assert s.depth_correlation == pytest.approx(1)
    assert s.atoms_in_slice > 0.97


def test_normalisation_takes_scale_and_offset_out(sample):
    t = sample.truth.array
    assert ssim(t, 3 * t + 5) == pytest.approx(1, abs=1e-5)
    assert psnr(t, 3 * t + 5) > 60
    assert normalise(t).min() == 0
    assert normalise(t).max() == 1
    assert not normalise(np.ones((3, 3))).any()


def test_an_even_spread_flatters_ssim_but_not_the_depth_metrics(sample):
    t = sample.truth.array
    even = np.broadcast_to(t.mean(0), t.shape)
    assert ssim(t, even) > 0.3
    assert correlation(t, even) > 0.5
    assert depth_correlation(t, even) == pytest.approx(0, abs=1e-6)
    assert atoms_in_slice(even, sample.truth_atoms, VOXEL) == 0


def test_reversed_depth_keeps_the_sum_and_loses_the_rest(sample):
    t = sample.truth
    s = evaluate(Volume(t.array[::-1], t.voxel_size), t, sample.truth_atoms)
    assert s.ssim_sum == pytest.approx(1)
    assert s.depth_correlation < 0.7


def test_psnr_and_ssim_are_those_of_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    rng = np.random.default_rng(0)
    a, b = rng.random((8, 16, 16)), rng.random((8, 16, 16))
    a, b = normalise(a), normalise(b)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
    assert ssim(a, b) == pytest.approx(structural_similarity(a, b, data_range=1))


def test_atoms_in_slice_counts_by_hand():
    test = np.zeros((4, 16, 16))
    test[0, 5, 5] = test[2, 5, 5] = test[3, 12, 12] = 1
    atoms = {"positions": np.array([[0.8, 1.0, 1.0], [4.0, 1.0, 1.0], [0.8, 2.4, 2.4]])}
    assert atoms_in_slice(test, atoms, VOXEL) == pytest.approx(2 / 3)
    full = {"positions": np.array([[1.6 * k + 0.8, 1.0, 1.0] for k in range(4)])}
    assert atoms_in_slice(test, full, VOXEL) is None


def test_mismatch_is_named(sample):
    t = sample.truth
    with pytest.raises(ValueError, match="like with like"):
        evaluate(t.crop(slice(0, 4)), t)
    with pytest.raises(ValueError, match="voxel sizes"):
        evaluate(Volume(t.array, (2.0, 0.2, 0.2)), t)


def test_expected_deviance_is_that_of_drawn_counts():
    rng = np.random.default_rng(0)
    for mean in (1e-3, 0.05, 0.7, 3.0, 20.0, 300.0):
        n = rng.poisson(mean, 400_000)
        deviance = 2 * (mean - n + np.where(n > 0, n * np.log(np.maximum(n, 1) / mean), 0)).mean()
        assert expected_deviance(mean) == pytest.approx(deviance, rel=0.05 if mean < 0.01 else 0.01)


def test_relative_deviance_is_one_for_the_truth_and_more_for_anything_else():
    rng = np.random.default_rng(1)
    model = rng.uniform(0.1, 30, (50, 16, 16))
    counts = rng.poisson(model)
    assert relative_deviance(counts, model) == pytest.approx(1, abs=0.02)
    assert relative_deviance(counts, model * 1.2) > 1.1
    with pytest.raises(ValueError, match="positive"):
        relative_deviance(counts, model * 0)
