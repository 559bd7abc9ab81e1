"""The Fisher matrix against finite differences of modelled patterns."""

from __future__ import annotations

import pytest
import torch

from napari_mepdiff.physics.fisher import fisher


def basis_of(small, count=3):
    y, x = torch.meshgrid(torch.arange(small.shape[1]), torch.arange(small.shape[2]), indexing="ij")
    places = [(9, 7), (16, 20), (25, 12)][:count]
    return torch.stack(
        [torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 6.0) for a, b in places]
    ).double()


@pytest.mark.parametrize(
    "options", [{}, {"band_limit": 2 / 3}, {"mask": torch.ones(32, 32).tril()}]
)
def test_it_is_the_sum_of_squared_slopes_over_intensity(small, options):
    problem = small(slices=3, scan=(3, 2))
    like = problem.likelihood(misfit="poisson", background=1e-2, **options)
    basis, volume = basis_of(problem), problem.volume
    found = fisher(like, volume, basis)
    h, slopes = 1e-4, []
    for s in range(3):
        for image in basis:
            step = torch.zeros_like(volume)
            step[s] = h * image
            slopes.append(
                ((like.patterns(volume + step) - like.patterns(volume - step)) / (2 * h)).reshape(
                    -1
                )
            )
    slopes = torch.stack(slopes)
    weight = like.weight.expand(problem.count, -1, -1).reshape(-1)
    root = like.patterns(volume).reshape(-1).rsqrt()
    used = slopes * root * (weight > 0)
    assert torch.allclose(found, used @ used.T, rtol=1e-5, atol=1e-6 * float(found.abs().max()))
    assert torch.allclose(
        fisher(like, volume, basis, [1, 4]) + fisher(like, volume, basis, [0, 2, 3, 5]), found
    )


def test_two_probe_modes_add_their_slopes(small):
    problem = small(slices=2, scan=(2, 2), modes=2)
    like = problem.likelihood(misfit="poisson", background=1e-2)
    basis, volume, h = basis_of(problem, 1), problem.volume, 1e-4
    step = torch.zeros_like(volume)
    step[1] = h * basis[0]
    slope = (like.patterns(volume + step) - like.patterns(volume - step)) / (2 * h)
    expected = (slope**2 / like.patterns(volume)).sum()
    assert fisher(like, volume, basis)[1, 1] == pytest.approx(float(expected), rel=1e-5)


def test_it_ends_early_and_refuses_what_does_not_fit(small):
    problem = small(slices=2, scan=(2, 2))
    like = problem.likelihood(misfit="poisson", background=1e-2)
    assert not fisher(like, problem.volume, basis_of(problem), alive=lambda: False).any()
    with pytest.raises(ValueError, match="basis"):
        fisher(like, problem.volume, torch.zeros(2, 8, 8))
