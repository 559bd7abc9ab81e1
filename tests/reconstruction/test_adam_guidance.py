"""Adam-guidance against the rule of its authors' code, written down once more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction.diffusion.adam import Adam
from napari_mepdiff.reconstruction.diffusion.data_term import DataTerm
from napari_mepdiff.reconstruction.diffusion.dps import DPSSettings
from napari_mepdiff.reconstruction.diffusion.grid import Grid
from napari_mepdiff.reconstruction.registry import solve

from ..prior.nets import tiny
from .independent import denoise, log_snrs, patterns, sde_dpm_solver_pp_2m
from .small import crystal_problem


class Given:
    """A misfit of 9, which the square root of it makes 3, and gradients that are handed in."""

    def __init__(self, gradients):
        self.gradients = iter(gradients)

    def __call__(self, x):
        return 9.0, next(self.gradients), 1.0


def test_moments_are_elementwise_and_corrected_as_in_the_authors_code():
    rng = torch.Generator().manual_seed(0)
    gradients = [torch.randn(2, 3, 4, generator=rng) * 10**n for n in (0, -6, 2)]
    guide, x = Adam(0.5, 0.6), torch.zeros(1, 2, 3, 4)
    m = v = np.zeros((2, 3, 4))
    for n, gradient in enumerate(gradients, 1):
        found = guide(Given([gradient]), x, lambda g: 2 * g, 0.0, 0.04)
        step = -2 * gradient.double().numpy() / (2 * 3)  # uphill in −√L
        m, v = 0.5 * m + 0.5 * step, 0.6 * v + 0.4 * step**2
        expected = 0.04 * (m / (1 - 0.5**n)) / (np.sqrt(v / (1 - 0.6**n)) + 1e-8)
        assert np.allclose(found.shift[0], expected, rtol=1e-4, atol=1e-7)
        assert torch.equal(found.x, x)  # the prediction itself stays
    first = Adam(0.5, 0.6)(Given([gradients[0]]), x, lambda g: g, 0.0, 0.04)
    assert torch.allclose(first.shift.abs(), torch.tensor(0.04), rtol=1e-4)  # all voxels the same


def test_a_state_goes_on_as_the_guide_itself():
    gradients = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    guide, x = Adam(0.5, 0.6), torch.zeros(1, 2, 3, 4)
    guide(Given(gradients), x, lambda g: g, 0.0, 1.0)
    copy = Adam(0.5, 0.6)
    copy.restore(guide.state())
    a, b = (one(Given(gradients[1:]), x, lambda g: g, 0.0, 1.0).shift for one in (guide, copy))
    assert torch.equal(a, b)


def test_a_whole_run_is_that_of_an_independent_loop(tmp_path):
    """DPM-Solver++ over the bare prediction, and the term on the latent of the next step, divided
    by that step's own α. Noisy gradients make every sign of a first step matter: one in a thousand
    voxels may come out the other way."""
    problem = crystal_problem(scan=4)[0]
    prior = tiny()
    prior.save(tmp_path / "tiny.safetensors", torch.float32)
    steps, rho, seed = 5, 0.05, 3
    s = DPSSettings(
        guidance="adam",
        prior=str(tmp_path / "tiny.safetensors"),
        precision="float32",
        steps=steps,
        adam_strength=rho,
        seed=seed,
        condition="none",
        fraction=1.0,
        misfit="intensity",
    )
    volume = list(solve(problem, s))[-1].volume
    term = DataTerm(problem, Grid(problem, prior), "intensity", 1, 1 << 28)
    y = torch.as_tensor(problem.patterns, dtype=torch.float64)
    moments = {"m": 0.0, "v": 0.0, "n": 0, "step": 0.0}

    def predict(z, level):
        leaf = z.clone().requires_grad_(True)
        x = denoise(prior, leaf, level)
        nats = (patterns(x.double() / 25, problem) - y).square().sum() * term.nats / term.noise
        g = -torch.autograd.grad(nats.sqrt(), leaf)[0]
        moments["n"] += 1
        moments["m"] = 0.5 * moments["m"] + 0.5 * g
        moments["v"] = 0.6 * moments["v"] + 0.4 * g**2
        m = moments["m"] / (1 - 0.5 ** moments["n"])
        v = moments["v"] / (1 - 0.6 ** moments["n"])
        moments["step"] = rho * m / (v.sqrt() + 1e-8)
        return x.detach()

    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(1, 4, 32, 32, generator=rng)[0]
    levels = log_snrs(steps)
    last = sde_dpm_solver_pp_2m(predict, z, levels, rng, lambda: moments["step"])
    last = last + moments["step"] / float(torch.sigmoid(torch.tensor(levels[-1]))) ** 0.5
    off = np.abs(volume - last.numpy() / 25)
    free = list(solve(problem, s.model_copy(update={"adam_strength": 0.0})))[-1].volume
    far = np.abs(free - last.numpy() / 25)
    assert np.quantile(off, 0.99) < 0.02 * np.quantile(far, 0.99)


def test_weight_multiplies_the_strength_and_the_schedule_has_no_effect():
    s = DPSSettings(guidance="adam")
    assert {"schedule", "curve", "inner", "odds"} <= set(s.idle())
    assert "weight" not in s.idle()
    assert (s.adam_strength, s.adam_beta1, s.adam_beta2) == (0.04, 0.5, 0.6)
    with pytest.raises(ValueError, match="less than 1"):
        DPSSettings(guidance="adam", adam_beta1=1.0)
