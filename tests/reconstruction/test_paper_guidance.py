"""The paper's guidance against its equation: autograd through network and multislice, differences,
and a whole run by an independent loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction.control import Control, Refused
from napari_mepdiff.reconstruction.diffusion.data_term import DataTerm, brightest
from napari_mepdiff.reconstruction.diffusion.dps import DPSSettings
from napari_mepdiff.reconstruction.diffusion.grid import Grid
from napari_mepdiff.reconstruction.diffusion.guides import strength
from napari_mepdiff.reconstruction.diffusion.paper import Paper
from napari_mepdiff.reconstruction.registry import solve
from napari_mepdiff.reconstruction.run import SolverError

from ..prior.nets import tiny
from .independent import denoise, log_snrs, patterns, sde_dpm_solver_pp_2m, squared_misfit
from .small import crystal_problem


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=4)[0]


def term_of(problem, prior):
    return DataTerm(problem, Grid(problem, prior), "intensity", 1, 1 << 28, "normalised")


def test_patterns_are_normalised_as_ptyrad_does(problem):
    """Its initialiser divides by the largest value of the mean pattern; the constant 5000 of the
    paper has a meaning only with that."""
    like = problem.likelihood("intensity")
    assert brightest(like) == pytest.approx(problem.patterns.mean(axis=0).max(), rel=1e-6)
    with pytest.raises(ValueError, match="compared by intensity"):
        DataTerm(problem, Grid(problem, tiny()), "poisson", 1, 1 << 28, "normalised")


def test_the_misfit_is_the_sum_over_all_positions_and_pixels(problem):
    prior = tiny()
    term = term_of(problem, prior)
    x = 5 * torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert patterns(x.double() / 25, problem).sum().item() == pytest.approx(
        16 * problem.electrons, rel=1e-4
    )
    assert term(x)[0] == pytest.approx(float(squared_misfit(x, problem)), rel=1e-3)


@pytest.mark.parametrize("level", [-9.0, -1.0, 4.0])
def test_one_step_is_the_equation_of_the_paper(problem, level):
    prior, w = tiny(), 1e-3
    z = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    x, pull = prior.vjp(z, level)
    s = DPSSettings(guidance="paper", weight=w)
    found = Paper()(term_of(problem, prior), x, pull, level, strength("paper", s, level))

    leaf = z[0].clone().requires_grad_(True)
    expected_x = denoise(prior, leaf, level)
    slope = torch.autograd.grad(squared_misfit(expected_x, problem), leaf)[0]
    g = w * 5000 * float(torch.sigmoid(torch.tensor(4 - level))) ** 0.5
    moved, expected = (found.x - x)[0], -g * slope
    assert torch.allclose(x[0], expected_x.detach(), atol=1e-4)
    assert float((moved - expected).norm() / expected.norm()) < 2e-3
    assert found.shift is None

    # and by differences: f(x_θ(z + h d)) alone, no gradient of anybody's
    d = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(2))
    h = 1e-2
    with torch.no_grad():
        plus, minus = (
            float(squared_misfit(denoise(prior, z[0] + sign * h * d, level), problem))
            for sign in (1, -1)
        )
    assert float((moved * d).sum()) == pytest.approx(-g * (plus - minus) / (2 * h), rel=2e-2)


def test_a_whole_run_is_that_of_an_independent_loop(problem, tmp_path):
    prior = tiny()
    prior.save(tmp_path / "tiny.safetensors", torch.float32)
    steps, w, seed = 6, 2e-3, 3
    s = DPSSettings(
        guidance="paper",
        prior=str(tmp_path / "tiny.safetensors"),
        precision="float32",
        steps=steps,
        weight=w,
        seed=seed,
    )
    frames = list(solve(problem, s))
    assert [f.step for f in frames] == list(range(1, steps + 1))  # no ordinary solution before

    def predict(z, level):
        leaf = z.clone().requires_grad_(True)
        x = denoise(prior, leaf, level)
        slope = torch.autograd.grad(squared_misfit(x, problem), leaf)[0]
        return x.detach() - w * 5000 * float(torch.sigmoid(torch.tensor(4 - level))) ** 0.5 * slope

    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(1, 4, 32, 32, generator=rng)[0]
    expected = sde_dpm_solver_pp_2m(predict, z, log_snrs(steps), rng) / 25
    off = np.abs(frames[-1].volume - expected.numpy()).max()
    assert off < 5e-3 * float(expected.abs().max())
    unguided = list(solve(problem, s.model_copy(update={"weight": 0.0})))[-1].volume
    assert np.abs(unguided - expected.numpy()).max() > 50 * off


def test_what_contradicts_the_paper_is_refused_or_has_no_effect(problem, tmp_path):
    """Misfit, positions and condition used to stand in the record of a run that ignored them."""
    with pytest.raises(ValueError, match="knows nothing of elements"):
        DPSSettings(guidance="paper", elements=("Sr",))
    tiny().save(tmp_path / "tiny.safetensors", torch.float32)
    common = {
        "guidance": "paper",
        "prior": str(tmp_path / "tiny.safetensors"),
        "precision": "float32",
        "steps": 4,
        "weight": 1e-3,
    }
    other = {
        "misfit": "amplitude",
        "fraction": 0.1,
        "condition": "sum",
        "evaluations": 7,
        "trust": 0.1,
        "passes": 2,
        "detector_stride": 1,
        "inner": 9,
        "odds": 0.1,
        "adam_strength": 1.0,
    }
    plain, same = (list(solve(problem, DPSSettings(**common, **f))) for f in ({}, other))
    assert np.array_equal(plain[-1].volume, same[-1].volume)
    assert not set(other) & set(DPSSettings(**common, **other).acting())
    control = Control()
    for _ in solve(problem, DPSSettings(**common), control):
        for name in ("misfit", "fraction", "trust", "odds", "inner", "adam_strength"):
            with pytest.raises(Refused, match=name):
                control.change(**{name: other[name]})
        break
    assert control.changes == []


def test_a_weight_thousands_of_times_too_strong_is_found_out_or_named(problem, tmp_path):
    """A weight far too strong ended in an error after eight halvings, far from one that works."""
    tiny().save(tmp_path / "tiny.safetensors", torch.float32)
    s = DPSSettings(
        guidance="paper",
        prior=str(tmp_path / "tiny.safetensors"),
        precision="float32",
        steps=8,
        weight=100.0,
    )
    control = Control()
    last = list(solve(problem, s, control))[-1]
    assert last.step == 8
    assert np.isfinite(last.volume).all()
    weights = [c.settings["weight"] for c in control.changes]
    assert weights == pytest.approx([10.0 ** (1 - n) for n in range(len(weights))])
    assert weights[-1] < 100 * 2**-8  # where halvings had given up

    kept = []
    with pytest.raises(SolverError, match=r"lower the guidance weight \(it was 100; .*1e-5"):
        kept.extend(solve(problem, s.model_copy(update={"recover": False})))
    assert kept
    assert np.isfinite(kept[-1].volume).all()
