"""The sampler against k-diffusion's formulas."""

from __future__ import annotations

import math

import pytest
import torch

from napari_mepdiff.prior.noise import alpha_sigma
from napari_mepdiff.prior.sampling import dpmpp_2m_sde, levels, sample

from .nets import tiny


def test_levels_are_the_paper_s():
    found = levels(181)
    assert found[0] == pytest.approx(-2 * math.log(800))
    assert found[-1] == pytest.approx(-2 * math.log(0.1))
    steps = torch.tensor(found).diff()
    assert torch.allclose(steps, steps[0].expand_as(steps), atol=1e-5)
    # k-diffusion's poly-exponential schedule with ρ = 1 in σ = √(1 / SNR)
    ramp = torch.linspace(1, 0, 181)
    sigmas = torch.exp(ramp * (math.log(800) - math.log(0.1)) + math.log(0.1))
    assert torch.allclose(torch.exp(-torch.tensor(found) / 2), sigmas, rtol=1e-4)
    with pytest.raises(ValueError, match="two steps"):
        levels(1)


def _denoise(z, level):
    alpha, _ = alpha_sigma(torch.tensor(level, dtype=torch.float64))
    return torch.tanh(z * float(alpha) + 0.3) + 0.1 * z.roll(1, -1)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_sampler_is_k_diffusions_dpmpp_2m_sde(eta):
    """sample_dpmpp_2m_sde (midpoint), written for variance exploding latents y = z / α, fed with the same noise."""
    lam = levels(12, 80.0, 0.1)
    z0 = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = [s.x for s in dpmpp_2m_sde(_denoise, z0, lam, torch.Generator().manual_seed(1), eta)]
    rng = torch.Generator().manual_seed(1)
    sigmas = [math.exp(-v / 2) for v in lam]
    alphas = [float(alpha_sigma(torch.tensor(v, dtype=torch.float64))[0]) for v in lam]
    y, old, h_last, theirs = z0 / alphas[0], None, None, []
    for i in range(len(sigmas)):
        denoised = _denoise(alphas[i] * y, lam[i])
        theirs.append(denoised)
        if i + 1 == len(sigmas):
            break
        t, s = -math.log(sigmas[i]), -math.log(sigmas[i + 1])
        h = s - t
        eta_h = eta * h
        new = sigmas[i + 1] / sigmas[i] * math.exp(-eta_h) * y + -math.expm1(-h - eta_h) * denoised
        if old is not None:
            r = h_last / h
            new = new + 0.5 * -math.expm1(-h - eta_h) * (1 / r) * (denoised - old)
        if eta:
            noise = torch.randn(y.shape, generator=rng, dtype=torch.float64)
            new = new + noise * sigmas[i + 1] * math.sqrt(-math.expm1(-2 * eta_h))
        y, old, h_last = new, denoised, h
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_gaussian_is_sampled_with_its_mean_and_spread():
    """For data N(m, s²) the x-prediction is known; the sampler must return that distribution."""
    m, s = 1.5, 0.4

    def denoise(z, level):
        alpha, sigma = (float(a) for a in alpha_sigma(torch.tensor(level, dtype=torch.float64)))
        return m + s**2 * alpha / (alpha**2 * s**2 + sigma**2) * (z - alpha * m)

    rng = torch.Generator().manual_seed(0)
    z = torch.randn(1, 8, 64, 64, generator=rng, dtype=torch.float64)
    *_, last = dpmpp_2m_sde(denoise, z, levels(120, 800.0, 0.02), rng)
    assert float(last.x.mean()) == pytest.approx(m, abs=0.01)
    assert float(last.x.std()) == pytest.approx(s, rel=0.03)


def test_samples_return_with_their_seed():
    prior = tiny()
    a, b, c = (sample(prior, (4, 16, 16), steps=4, seed=s) for s in (1, 1, 2))
    assert a.shape == (1, 4, 16, 16)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
