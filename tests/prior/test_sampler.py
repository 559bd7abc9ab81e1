"""The sampler against k-diffusion's formulas."""

from __future__ import annotations

import math

import pytest
import torch

from napari_mepdiff.prior.process import alpha_sigma
from napari_mepdiff.prior.sampler import dpmpp_2m_sde, levels, sample

from ..needs import needs
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
    """sample_dpmpp_2m_sde (midpoint), written for variance exploding latents y = z / α, fed with
    the same noise.
    """
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


@needs("diffusers")
@pytest.mark.parametrize(
    ("schedule", "diffusers_name", "rho"),
    [("poly-exponential", "exponential", None), ("karras", "karras", 7.0)],
)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_sampler_is_that_of_diffusers(schedule, diffusers_name, rho, eta):
    """EDMDPMSolverMultistepScheduler, variance exploding, fed with the same noise and the same
    x-predictions.
    """
    from diffusers import EDMDPMSolverMultistepScheduler

    steps, top, bottom = 20, 80.0, 0.1
    theirs = EDMDPMSolverMultistepScheduler(
        sigma_min=bottom,
        sigma_max=top,
        sigma_schedule=diffusers_name,
        rho=7.0,
        final_sigmas_type="sigma_min",
        algorithm_type="sde-dpmsolver++" if eta else "dpmsolver++",
    )
    theirs.set_timesteps(steps)
    lam = levels(steps, top, bottom, schedule, rho)
    alphas = [float(alpha_sigma(torch.tensor(v, dtype=torch.float64))[0]) for v in lam]
    assert torch.allclose(
        theirs.sigmas[:steps].double(),
        torch.exp(-torch.tensor(lam, dtype=torch.float64) / 2),
        rtol=1e-4,
    )
    z0 = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = list(dpmpp_2m_sde(_denoise, z0, lam, torch.Generator().manual_seed(1), eta))
    rng, y = torch.Generator().manual_seed(1), z0 / alphas[0]
    for i in range(steps - 1):
        assert torch.allclose(y * alphas[i], ours[i].z, rtol=1e-3, atol=1e-4)
        x = _denoise(alphas[i] * y, lam[i])
        sigma = float(theirs.sigmas[i])
        skip, out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25) ** 0.5
        y = theirs.step((x - skip * y) / out, theirs.timesteps[i], y, generator=rng).prev_sample


def test_samples_of_a_gaussian_posterior_have_its_mean_and_spread():
    """x ~ N(m, s²), y = x + n with known noise: the exact E[x | z, y] as denoiser must give the
    posterior known in closed form.
    """
    m, s2, y, n2 = 0.7, 0.25, 1.5, 0.16
    post_var = 1 / (1 / s2 + 1 / n2)
    post_mean = post_var * (m / s2 + y / n2)

    def denoise(z, level):
        alpha, sigma = (float(v) for v in alpha_sigma(torch.tensor(level, dtype=torch.float64)))
        var = 1 / (1 / post_var + alpha**2 / sigma**2)
        return var * (post_mean / post_var + alpha / sigma**2 * z)

    for eta in (0.0, 1.0):
        z = torch.randn(40_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        final = list(
            dpmpp_2m_sde(denoise, z, levels(60, 400.0, 0.01), torch.Generator().manual_seed(4), eta)
        )[-1].x
        assert float(final.mean()) == pytest.approx(post_mean, abs=0.01)
        assert float(final.std()) == pytest.approx(post_var**0.5, rel=0.03)


def test_every_schedule_rises_from_its_first_to_its_last_level():
    for schedule in ("poly-exponential", "linear", "karras"):
        for steps in (2, 3, 25, 400):
            found = torch.tensor(levels(steps, schedule=schedule))
            assert len(found) == steps
            assert bool((found.diff() > 0).all())
            ends = (
                (-13.0, 4.0) if schedule == "linear" else (-2 * math.log(800), -2 * math.log(0.1))
            )
            assert found[0] == pytest.approx(ends[0], rel=1e-5)
            assert found[-1] == pytest.approx(ends[1], rel=1e-5)
    curved = levels(5, rho=2.0)  # ρ = 2 leaves noise fast and nears the end slowly
    assert curved[1] - curved[0] > curved[-1] - curved[-2]
    with pytest.raises(ValueError, match="schedule is"):
        levels(5, schedule="cosine")
    with pytest.raises(ValueError, match="positive"):
        levels(5, rho=-1.0)


def test_a_level_that_does_not_rise_is_refused():
    from napari_mepdiff.prior.sampler import State, advance

    state = State(torch.zeros(3), 0.0)
    with pytest.raises(ValueError, match="rises"):
        advance(state, torch.zeros(3), -1.0, None, 0.0)
    with pytest.raises(ValueError, match="noise"):
        advance(state, torch.zeros(3), 1.0, None, 1.0)
