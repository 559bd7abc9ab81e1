"""Slices that the physics takes together: an exact linear map, and a good approximation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.fisher import fisher
from napari_mepdiff.physics.grouping import Grouping
from napari_mepdiff.physics.light import light
from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, probe_from_parameters, wavelength
from napari_mepdiff.physics.propagation import propagator

ENERGY, THIN = 300.0, 1.6


def probe_at(depth, overfocus=60.0):
    optics = Optics(semi_angle=20, overfocus=overfocus + depth, C30=5000)
    return probe_from_parameters(optics, (32, 32), (0.2, 0.2), dtype=torch.complex128) * 1e3


def likelihood(probe, volume, together=1, thickness=THIN, patterns=None, misfit="poisson"):
    places = np.stack(np.meshgrid([1.0, 2.7, 4.4], [0.9, 3.1], indexing="ij"), -1).reshape(-1, 2)
    if patterns is None:
        patterns = np.full((len(places), 32, 32), 7.0)
    return Likelihood(
        patterns,
        probe,
        places,
        tuple(volume.shape),
        pixel_size=(0.2, 0.2),
        slice_thickness=thickness,
        energy=ENERGY,
        together=together,
        misfit=misfit,
        background=1e-2,
        dtype=torch.float64,
    )


def volume(depth=12, seed=3):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random((depth, 32, 32)))
    smooth = torch.fft.fft2(x) * torch.exp(
        -8.0 * (torch.fft.fftfreq(32)[:, None] ** 2 + torch.fft.fftfreq(32) ** 2) * 3
    )
    return torch.fft.ifft2(smooth).real * 0.3


def test_groups_are_even_and_hold_all_slices():
    assert Grouping.every(8, 1).trivial
    assert Grouping.every(12, 6).sizes == (6, 6)
    assert Grouping.every(13, 6).sizes == (5, 4, 4)
    assert sum(Grouping.every(49, 6).sizes) == 49
    for wrong in (0, 9):
        with pytest.raises(ValueError, match="1 to 8 slices"):
            Grouping.every(8, wrong)


def test_gaps_reach_from_middle_to_middle():
    assert Grouping.every(5, 2).sizes == (2, 2, 1)
    found = Grouping.every(5, 2).thickness([1.0] * 5)
    np.testing.assert_allclose(found, [2.0, 1.5, 1.0])


def test_adjoint_is_that_of_the_sum():
    group = Grouping.every(7, 3)
    x, y = torch.rand(7, 4, 5).double(), torch.rand(len(group.sizes), 4, 5).double()
    assert float((group.sum(x) * y).sum()) == pytest.approx(float((x * group.adjoint(y)).sum()))


def test_it_is_the_model_of_the_summed_slices():
    x = volume()
    together = likelihood(probe_at(0), x, 4)
    summed = x.view(3, 4, 32, 32).sum(dim=1)
    coarse = likelihood(probe_at(0), summed, thickness=4 * THIN)
    loss, gradient = together(x)
    same_loss, same = coarse(summed)
    assert loss == pytest.approx(same_loss, rel=1e-12)
    torch.testing.assert_close(gradient, same.repeat_interleave(4, dim=0))
    torch.testing.assert_close(light(together), light(coarse).repeat_interleave(4, dim=0))


def test_gradient_against_finite_differences():
    x = volume(7)
    like = likelihood(probe_at(0), x, 3)
    _, gradient = like(x)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    h = 1e-7
    slope = (like.loss(x + h * step) - like.loss(x - h * step)) / (2 * h)
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-6)


def test_fisher_matrix_of_slices_in_one_group_is_shared():
    x = volume(6)
    like = likelihood(probe_at(0), x, 3)
    summed = x.view(2, 3, 32, 32).sum(dim=1)
    coarse = likelihood(probe_at(0), summed, thickness=3 * THIN)
    basis = torch.zeros(2, 32, 32).double()
    basis[0, 8:12, 9:12], basis[1, 20:23, 15:19] = 1.0, 1.0
    small = fisher(coarse, summed, basis).view(2, 2, 2, 2)
    large = fisher(like, x, basis).view(6, 2, 6, 2)
    for s in range(6):
        for t in range(6):
            torch.testing.assert_close(large[s, :, t], small[s // 3, :, t // 3])


def test_acting_in_the_middle_is_closest_to_thin_slices():
    """The probe is propagated to the middle of the first group: else all stands 4 Å too high."""
    x = volume(12)
    exact = likelihood(probe_at(0), x).patterns(x)

    def error(probe):
        found = likelihood(probe, x, 6).patterns(x)
        return float(((found - exact) ** 2 / exact).sum())

    middle = error(probe_at(2.5 * THIN))
    assert middle < error(probe_at(0))
    assert middle < error(probe_at(5 * THIN))
    # a probe at another plane is one with another defocus
    h = propagator((32, 32), (0.2, 0.2), 4.0, wavelength(ENERGY))
    moved = torch.fft.ifft2(torch.fft.fft2(probe_at(0)) * h)
    torch.testing.assert_close(moved, probe_at(4.0), atol=1e-6, rtol=1e-6)
