"""Parameterisations, weighting and the adaptive schedule."""

from __future__ import annotations

import math

import pytest
import torch

from napari_mepdiff.prior import noise as n

LEVELS = torch.tensor([-20.0, -13.0, -7.0, -1.0, 0.0, 3.0, 9.0], dtype=torch.float64)


@pytest.fixture
def state():
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(len(LEVELS), 4, 5, 6, generator=rng, dtype=torch.float64)
    e = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    return x, e, n.diffuse(x, e, LEVELS), n.velocity(x, e, LEVELS)


def test_variance_is_preserved_and_lambda_is_the_log_of_the_ratio():
    alpha, sigma = n.alpha_sigma(LEVELS)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(LEVELS), atol=1e-12)
    assert torch.allclose(torch.log(alpha**2 / sigma**2), LEVELS, atol=1e-9)


def test_every_parameterisation_leads_to_every_other(state):
    x, e, z, v = state
    assert torch.allclose(n.x_from_v(z, v, LEVELS), x, atol=1e-6)
    assert torch.allclose(n.noise_from_v(z, v, LEVELS), e, atol=1e-6)
    assert torch.allclose(n.v_from_x(z, x, LEVELS), v, atol=1e-6)
    assert torch.allclose(n.v_from_noise(z, e, LEVELS), v, atol=1e-6)
    assert torch.allclose(n.x_from_noise(z, e, LEVELS), x, atol=1e-6)
    assert torch.allclose(n.noise_from_x(z, x, LEVELS), e, atol=1e-6)


def test_the_three_scores_of_section_2_agree(state):
    x, e, z, v = state
    score = n.score_from_v(z, v, LEVELS)
    for other in (n.score_from_noise(z, e, LEVELS), n.score_from_x(z, x, LEVELS)):
        assert ((score - other).norm() / score.norm()) < 1e-6


def test_the_score_is_the_gradient_of_the_log_density():
    x, level = torch.tensor([[[0.7]]], dtype=torch.float64), -2.0
    alpha, sigma = (float(a) for a in n.alpha_sigma(torch.tensor(level, dtype=torch.float64)))
    z = torch.tensor([[[0.3]]], dtype=torch.float64, requires_grad=True)
    (-((z - alpha * x) ** 2) / (2 * sigma**2)).sum().backward()
    assert float(n.score_from_x(z.detach(), x, level)) == pytest.approx(float(z.grad), rel=1e-9)


def test_rescaled_data_weigh_the_x_part_by_c():
    # appendix B: v' − v'_θ = α (ε − ε_θ) + c σ (x_θ − x)
    rng = torch.Generator().manual_seed(0)
    x, e, xt, et = (torch.randn(1, 2, 3, 4, generator=rng, dtype=torch.float64) for _ in range(4))
    level = torch.tensor([-3.0], dtype=torch.float64)
    alpha, sigma = n.alpha_sigma(level)
    left = n.velocity(n.SCALE * x, e, level) - n.velocity(n.SCALE * xt, et, level)
    assert torch.allclose(left, alpha * (e - et) + n.SCALE * sigma * (xt - x), atol=1e-12)


def test_weighting_is_a_density():
    grid = torch.linspace(n.LOW, n.HIGH, 20001)
    w = n.weighting(grid)
    assert float(torch.trapezoid(w, grid)) == pytest.approx(1, abs=1e-4)
    assert float(grid[w.argmax()]) == pytest.approx(-7, abs=0.01)
    assert float(n.weighting(torch.tensor(-4.0)) / n.weighting(torch.tensor(-7.0))) == pytest.approx(math.exp(-0.5), rel=1e-5)


def _learnt(loss):
    schedule = n.AdaptiveSchedule(decay=0.9)
    rng = torch.Generator().manual_seed(0)
    for _ in range(400):
        level, _ = schedule.draw(16, rng)
        schedule.update(level, loss(level))
    return schedule, rng


def test_the_adaptive_schedule_keeps_the_objective_and_lowers_its_variance():
    def loss(level):
        return torch.exp(-0.5 * ((level + 3) / 1.0) ** 2) + 0.01

    grid = torch.linspace(n.LOW, n.HIGH, 40001)
    truth = float(torch.trapezoid(n.weighting(grid) * loss(grid), grid))
    schedule, rng = _learnt(loss)
    fixed = n.AdaptiveSchedule()
    means, spreads = [], []
    for one in (schedule, fixed):
        level, factor = (torch.cat(t) for t in zip(*(one.draw(64, rng) for _ in range(300)), strict=True))
        value = loss(level) * factor
        means.append(float(value.mean()))
        spreads.append(float(value.std()))
    assert means == pytest.approx([truth, truth], rel=0.03)
    assert spreads[0] < 0.7 * spreads[1]


def test_the_adaptive_schedule_survives_nan_and_a_round_trip():
    schedule, _rng = _learnt(lambda level: level.abs())
    before = schedule.average.clone()
    schedule.update(torch.tensor([-5.0]), torch.tensor([float("nan")]))
    assert torch.equal(before, schedule.average)
    other = n.AdaptiveSchedule()
    other.load_state_dict(schedule.state_dict())
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    assert all(torch.equal(x, y) for x, y in zip(schedule.draw(9, a), other.draw(9, b), strict=True))
    assert float(schedule.density().sum()) == pytest.approx(1, abs=1e-5)
