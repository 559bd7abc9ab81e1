"""Parameterisations of the diffusion process."""

from __future__ import annotations

import pytest
import torch

from napari_mepdiff.prior import process as n

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
