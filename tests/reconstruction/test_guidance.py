"""Guidance: its schedules, the data term on the prior's grid, and one guided step against what is
known in closed form."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.light import light_on_canvas
from napari_mepdiff.physics.optics import interaction_parameter
from napari_mepdiff.reconstruction.diffusion.data_term import DataTerm, pick_stride
from napari_mepdiff.reconstruction.diffusion.decoupled import Decoupled
from napari_mepdiff.reconstruction.diffusion.grid import Grid, GridError
from napari_mepdiff.reconstruction.diffusion.guidance import guidance
from napari_mepdiff.reconstruction.diffusion.newton import Newton

from ..prior.nets import tiny
from .small import crystal_problem


# ---- schedules -----------------------------------------------------------------------------------
def test_schedules_are_the_paper_s():
    for lam in (-13.0, -2.0, 0.0, 4.0, 9.0):
        assert guidance("shifted-sigmoid", lam) == pytest.approx(
            (1 / (1 + math.exp(lam - 4))) ** 0.5
        )
        assert guidance("alpha", lam) == pytest.approx((1 / (1 + math.exp(-lam))) ** 0.5)
        assert guidance("constant", lam) == 1
    assert guidance("shifted-sigmoid", 4.0) == pytest.approx(0.5**0.5)
    assert guidance("shifted-sigmoid", 900.0) == 0


def test_a_free_curve_goes_through_its_points():
    curve = ((-10.0, 0.0), (-2.0, 1.0), (4.0, 0.25))
    assert [guidance("curve", v, curve) for v in (-20, -10, -6, -2, 1, 4, 20)] == pytest.approx(
        [0, 0, 0.5, 1, 0.625, 0.25, 0.25]
    )
    with pytest.raises(ValueError, match="at least one point"):
        guidance("curve", 0.0)
    with pytest.raises(ValueError, match="schedule is"):
        guidance("cosine", 0.0)  # type: ignore[arg-type]


# ---- the prior's grid ----------------------------------------------------------------------------
def test_the_grid_takes_volumes_and_gradients_to_other_voxels_and_energies():
    problem, truth = crystal_problem()
    prior = tiny()
    same = Grid(problem, prior)
    assert not same.resampled
    x = same.to_prior(torch.from_numpy(truth))
    assert torch.allclose(x, 25 * torch.from_numpy(truth))
    assert torch.allclose(same.to_problem(x), torch.from_numpy(truth))
    low = dataclasses.replace(problem, energy=80.0)
    ratio = interaction_parameter(80.0) / interaction_parameter(300.0)
    assert float(Grid(low, prior).to_problem(x).max() / truth.max()) == pytest.approx(
        ratio, rel=1e-5
    )
    coarse = Grid(dataclasses.replace(problem, voxel_size=(1.6, 0.25, 0.25)), prior)
    assert coarse.resampled
    assert coarse.shape == (4, 40, 40)
    a, b = torch.randn(4, 40, 40), torch.randn(4, 32, 32)
    assert float((coarse.to_problem(a) * b).sum()) == pytest.approx(
        float((a * coarse.adjoint(b)).sum()), rel=1e-4
    )
    wave = torch.sin(torch.arange(32) * 0.25 * 2 * math.pi / 4)[None, None].expand(
        4, 32, 32
    )  # 4 Å waves
    again = coarse.to_problem(coarse.to_prior(wave))
    assert float((again - wave)[:, 2:-2, 2:-2].abs().max()) < 0.05


def test_the_prior_sees_what_probes_light_up_of_an_extended_canvas():
    problem, _ = crystal_problem(boundary="extended")
    near = (problem.positions < 7.0).all(axis=1)
    few = dataclasses.replace(
        problem, positions=problem.positions[near], patterns=problem.patterns[near]
    )
    for voxels in ((1.6, 0.2, 0.2), (1.6, 0.25, 0.25)):
        grid = Grid(dataclasses.replace(few, voxel_size=voxels), tiny())
        rows, columns = grid.window
        assert 0 <= rows.start < rows.stop < 64
        assert (rows.stop - rows.start) * (columns.stop - columns.start) < 0.6 * 64**2
        a, b = torch.randn(grid.shape), torch.randn(4, 64, 64)
        there = grid.to_problem(a)
        assert float((there * b).sum()) == pytest.approx(
            float((a * grid.adjoint(b)).sum()), rel=1e-3, abs=1e-3
        )
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[rows, columns] = False
        assert not there[:, outside].any()
    grid = Grid(few, tiny())
    x = torch.randn(grid.shape)
    torch.testing.assert_close(grid.to_prior(grid.to_problem(x)), x)
    # nearly all electrons of every probe fall into it
    light = light_on_canvas(few.likelihood())
    assert float(light[grid.window].sum() / light.sum()) > 0.95
    whole = Grid(problem, tiny())
    assert (whole.window[0].stop - whole.window[0].start) > (rows.stop - rows.start)


def test_voxels_that_the_prior_does_not_know_are_refused_with_what_to_do():
    problem, _ = crystal_problem()
    prior = tiny()
    with pytest.raises(GridError, match=r"slice thickness of 1.6 Å \(6 slices"):
        Grid(dataclasses.replace(problem, slice_thickness=(2.4,) * 4), prior)
    with pytest.raises(GridError, match="too far to resample"):
        Grid(dataclasses.replace(problem, voxel_size=(1.6, 0.05, 0.05)), prior)
    with pytest.raises(GridError, match="at least 4 slices"):
        Grid(dataclasses.replace(problem, shape=(2, 32, 32), slice_thickness=(1.6,) * 2), prior)


def test_every_second_pixel_only_where_it_loses_nothing():
    problem, _ = crystal_problem()
    assert pick_stride(problem, 1) == 1
    assert pick_stride(problem, 2) == 1  # a field as large as the window
    half = dataclasses.replace(problem, shape=(4, 16, 16))
    assert pick_stride(half, 2) == 2  # the field repeats within half the window
    odd = dataclasses.replace(
        half, patterns=problem.patterns[:, :30, :30], probe=problem.probe[:, :30, :30]
    )
    assert pick_stride(odd, 2) == 1


@pytest.mark.parametrize("misfit", ["poisson", "amplitude", "intensity"])
def test_the_data_term_is_in_nats_whatever_the_misfit(misfit):
    problem, truth = crystal_problem()
    grid = Grid(problem, tiny())
    term = DataTerm(problem, grid, misfit, 1, 1 << 28)
    x = grid.to_prior(torch.from_numpy(truth))
    nats, gradient, relative = term(x)
    # at the truth half a nat per pixel that electrons reach, and the relative misfit is 1
    assert relative == pytest.approx(1, abs=0.15)
    assert nats == pytest.approx(relative * term.nats * term.count, rel=1e-5)
    assert term.value(x) == pytest.approx((nats, relative), rel=1e-5)
    part = term(x, list(range(0, 81, 2)))[0]
    assert part == pytest.approx(nats, rel=0.1)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    away = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    h = 0.02
    numeric = (term.value(away + h * step)[0] - term.value(away - h * step)[0]) / (2 * h)
    assert float((term(away)[1] * step).sum()) == pytest.approx(numeric, rel=0.02)
    assert gradient.shape == x.shape
    assert term.seconds > 0


# ---- one guided step -----------------------------------------------------------------------------
class Linear:
    """−log p of one number y = a·x + n, n ~ N(0, s²)."""

    def __init__(self, a, y, s):
        self.a, self.y, self.s = a, y, s

    def __call__(self, x):
        miss = float((self.a * x).sum()) - self.y
        return miss**2 / (2 * self.s**2), self.a * (miss / self.s**2), miss

    def value(self, x):
        loss, _, miss = self(x)
        return loss, miss


@pytest.mark.parametrize("level", [-6.0, 0.0, 3.0])
@pytest.mark.parametrize("noise", [0.01, 30.0])
def test_weight_one_is_the_posterior_mean_of_a_linear_measurement(level, noise):
    """Gaussian prior of variance σ² about x_θ, one linear measurement: Kalman's formula. A weak
    measurement moves little."""
    rng = torch.Generator().manual_seed(0)
    x, a = torch.randn(1, 4, 5, 6, generator=rng), torch.randn(4, 5, 6, generator=rng)
    variance = 1 / (1 + math.exp(level))
    y = float((a * x[0]).sum()) + 5.0
    gain = variance / (variance * float(a.square().sum()) + noise**2)
    expected = x[0] + gain * 5.0 * a
    term = Linear(a, y, noise)
    guide = Newton(1)
    for _ in range(2):  # the second trial starts from a known curvature
        found = guide(term, x, lambda g: 0.37 * g, level, 1.0)
        assert torch.allclose(found.x[0], expected, rtol=1e-3, atol=1e-3)
    assert torch.allclose(
        guide(term, x, lambda g: 0.37 * g, level, 0.5).x[0], x[0] + (expected - x[0]) / 2, atol=1e-3
    )
    near = Decoupled()(term, x, None, level, 1.0, 20)
    assert torch.allclose(near.x[0], expected, rtol=1e-3, atol=2e-3)
    assert torch.equal(Decoupled()(term, x, None, level, 0.0, 20).x, x)


def test_the_pullback_is_the_gradient_of_the_misfit_by_the_latent():
    problem, _ = crystal_problem()
    prior = tiny()
    term = DataTerm(problem, Grid(problem, prior), "poisson", 1, 1 << 28)
    z = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(1))
    x, pull = prior.vjp(z, -1.0)
    _, slope, _ = term(x)
    h = 0.02
    numeric = (
        term.value(prior(z + h * direction, -1.0))[0]
        - term.value(prior(z - h * direction, -1.0))[0]
    ) / (2 * h)
    assert float((pull(slope) * direction).sum()) == pytest.approx(numeric, rel=0.02)


def test_guidance_lowers_the_misfit_at_every_dose():
    for electrons in (50.0, 2e5):
        problem, _ = crystal_problem(electrons=electrons)
        term = DataTerm(problem, Grid(problem, tiny()), "poisson", 1, 1 << 28)
        x = 0.5 * torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        free = term.value(x[0])[0]
        for guide in (Newton(1), Decoupled()):
            assert term.value(guide(term, x, lambda g: g, -2.0, 1.0, 3).x[0])[0] < free
    assert np.isfinite(free)
