"""Pictures and positions are compared beyond what a measurement cannot fix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from napari_mepdiff.evaluation.registration import beyond_affine, register


def atoms(shape=(72, 72), spacing=13.0, sheared=None):
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    out = np.zeros(shape)
    rng = np.random.default_rng(3)
    for i in np.arange(6, shape[0], spacing):
        for j in np.arange(6, shape[1], spacing):
            out += rng.uniform(0.5, 1.5) * np.exp(-((y - i) ** 2 + (x - j) ** 2) / 8)
    return out


FIELD = (slice(16, 56), slice(16, 56))


def test_a_moved_sheared_picture_is_laid_back():
    truth = atoms()
    matrix = np.array([[1.02, 0.015], [-0.01, 0.985]])  # from a place on the truth to the picture
    middle = np.array([35.5, 35.5])
    shift = np.array([1.6, -2.3])
    back = np.linalg.inv(matrix)
    picture = affine_transform(truth, back, middle - back @ (middle + shift), order=3)
    found = register(picture, truth, FIELD)
    assert found.correlation > 0.995
    np.testing.assert_allclose(found.shift, shift, atol=0.1)
    np.testing.assert_allclose(found.matrix, matrix, atol=4e-3)
    assert np.corrcoef(picture[FIELD].ravel(), truth[FIELD].ravel())[0, 1] < 0.8


def test_noise_does_not_correlate():
    noise = np.random.default_rng(0).normal(size=(72, 72))
    assert register(noise, atoms(), FIELD, evaluations=100).correlation < 0.3


@pytest.mark.parametrize(
    ("picture", "why"), [(np.ones((72, 72)), "constant"), (np.full((72, 72), np.nan), "NaN")]
)
def test_what_cannot_be_compared_is_refused(picture, why):
    with pytest.raises(ValueError, match=why):
        register(picture, atoms(), FIELD)
    with pytest.raises(ValueError, match="empty"):
        register(atoms(), atoms(), (slice(0, 0), slice(0, 5)))


def test_positions_are_judged_beyond_a_common_affine():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 12, (400, 2))
    jitter = rng.normal(0, 0.05, truth.shape)
    seen = (truth + jitter) @ np.array([[1.03, 0.01], [0.02, 0.98]]) + [3.0, -1.0]
    assert beyond_affine(seen, truth) == pytest.approx(0.05, rel=0.06)
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        beyond_affine(seen[:5], truth)
    with pytest.raises(ValueError, match="fewer than 4"):
        beyond_affine(seen[:3], truth[:3])
