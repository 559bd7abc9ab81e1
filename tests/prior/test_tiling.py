"""Wide fields in overlapping windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.prior.condition import Condition
from napari_mepdiff.prior.process import x_from_v
from napari_mepdiff.prior.tiling import starts

from .nets import noise, tiny


def test_windows_blend_to_one_without_a_seam():
    """A network that returns its λ-dependent constant must return it everywhere, whatever the
    offset.
    """
    prior = tiny(tiling="windows")
    prior.network.forward = lambda z, level, condition, flags: (
        torch.ones_like(z) * level[:, None, None, None]
    )
    for periodic in (False, True):
        prior.periodic = periodic
        z = torch.zeros(2, 19, 150, 90)
        v_like = prior(z, torch.tensor([-3.0, 1.0]))
        wanted = x_from_v(
            z,
            torch.ones_like(z) * torch.tensor([-3.0, 1.0])[:, None, None, None],
            torch.tensor([-3.0, 1.0]),
        )
        assert torch.allclose(v_like, wanted, atol=1e-5)


def test_windows_see_the_right_part_of_the_volume():
    prior = tiny(tiling="windows")
    prior.network.forward = lambda z, level, condition, flags: z + 2 * condition[:, 0]
    z, known = noise(11, 100, 80), Condition.from_sum(noise(100, 80, seed=3), 11)
    for periodic in (False, True):
        prior.periodic = periodic
        expected = x_from_v(z, z + 2 * known.channels(prior.scale)[0][0], 0.0)
        assert torch.allclose(prior(z, 0.0, known), expected, atol=1e-4)


def test_windows_over_depth_split_a_known_volume_into_their_own_mean_and_trend():
    prior = tiny(tiling="windows")
    seen = []

    def look(z, level, condition, flags):
        seen.append(condition)
        return torch.zeros_like(z)

    prior.network.forward = look
    volume = noise(14, 32, 32, seed=3)
    prior(noise(14, 32, 32), 0.0, Condition.from_volume(volume, 0.5))
    parts = torch.cat(seen)
    assert len(parts) > 1
    assert parts[:, 1].mean(dim=1).abs().max() < 1e-4
    assert parts[:, 0].std(dim=1).max() < 1e-4
    first = parts.sum(dim=1)[0, :, 5, 5]
    apart = [float((first - prior.scale * volume[n : n + 8, 5, 5]).abs().max()) for n in range(7)]
    assert min(apart) < 1e-4


def test_the_prior_is_a_pure_function_and_the_seed_moves_its_windows():
    """A wide field sampled twice with one seed gives one volume, whatever the prior was asked
    before.
    """
    prior, z = tiny(tiling="windows", periodic=True), noise(8, 128, 128)
    first, second = prior(z, -2.0, None, 5), prior(z, -2.0, None, 6)
    assert torch.equal(prior(z, -2.0, None, 5), first)
    assert (first - second).abs().max() > 1e-6
    x, pull = prior.vjp(z, -2.0, None, 5)
    assert torch.allclose(x, first, atol=1e-6)
    _, again = prior.vjp(z, -2.0, None, 5)
    assert torch.allclose(pull(z), again(z), atol=1e-6)


@pytest.mark.parametrize("periodic", [False, True])
def test_windows_cover_every_voxel(periodic):
    rng = np.random.default_rng(0)
    for length in (65, 88, 100, 128, 129, 300):
        for _ in range(20):
            first = starts(length, 64, 24, rng, periodic)
            covered = {(s + i) % length for s in first for i in range(64)}
            assert covered == set(range(length))
            assert periodic or max(first) + 64 <= length
