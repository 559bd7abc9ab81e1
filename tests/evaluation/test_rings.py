"""Fourier ring correlation of pictures whose detail is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_mepdiff.evaluation.rings import ring_correlation, ring_resolution

PIXEL = 0.2


def crystal(n=96):
    """Sharp atoms 3.9 Å apart: rings between their spots hold nothing."""
    y, x = np.mgrid[:n, :n] * PIXEL
    out = np.zeros((n, n))
    for cy in np.arange(0.7, n * PIXEL, 3.9):
        for cx in np.arange(0.4, n * PIXEL, 3.9):
            out += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 0.15**2))
    return out


def test_a_picture_agrees_with_itself():
    truth = crystal()
    np.testing.assert_allclose(ring_correlation(truth, truth), 1.0)
    assert ring_resolution(truth, truth, PIXEL) == pytest.approx(96 * PIXEL / 47)


@pytest.mark.parametrize("detail", [0.8, 1.2])
def test_resolution_is_where_noise_takes_over(detail):
    """Everything finer than `detail` is replaced by noise of the same power."""
    truth = crystal()
    f = np.fft.fftfreq(96, PIXEL)
    fine = np.hypot(f[:, None], f) > 1 / detail
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=truth.shape))
    spectrum = np.fft.fft2(truth)
    noise *= np.abs(spectrum[fine]).mean() / np.abs(noise[fine]).mean()
    picture = np.fft.ifft2(np.where(fine, noise, spectrum)).real
    assert ring_resolution(picture, truth, PIXEL) == pytest.approx(detail, rel=0.15)


def test_blur_costs_little_but_noise_does():
    truth = crystal()
    noisy = truth + np.random.default_rng(1).normal(0, 0.2 * truth.std(), truth.shape)
    sharp = ring_resolution(noisy, truth, PIXEL)
    blurred = ring_resolution(gaussian_filter(noisy, 0.7), truth, PIXEL)
    assert blurred == pytest.approx(sharp, rel=0.1)
    worse = truth + np.random.default_rng(1).normal(0, 0.8 * truth.std(), truth.shape)
    assert ring_resolution(worse, truth, PIXEL) > 1.2 * sharp


def test_nothing_in_common_has_no_resolution():
    rng = np.random.default_rng(2)
    assert ring_resolution(rng.normal(size=(64, 64)), crystal(64), PIXEL) is None


def test_pictures_must_be_square_and_alike():
    with pytest.raises(ValueError, match="two square pictures"):
        ring_correlation(np.zeros((4, 5)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="two square pictures"):
        ring_correlation(np.zeros((4, 4)), np.zeros((5, 5)))
