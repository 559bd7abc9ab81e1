"""Prior: evaluation on any field, and its pullback."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.prior.condition import Condition
from napari_mepdiff.prior.process import x_from_v
from napari_mepdiff.training.corruption import Dropout, corrupt

from .nets import noise, tiny


def test_the_x_prediction_is_alpha_z_minus_sigma_v():
    prior, z = tiny(), noise(4, 32, 32)
    v = prior.network(
        z[None], torch.tensor([-3.0]), torch.zeros(1, 2, 4, 32, 32), torch.zeros(1, 3)
    )
    assert torch.allclose(prior(z, -3.0), x_from_v(z, v[0], -3.0), atol=1e-6)


def test_a_dropped_condition_is_the_unconditional_path():
    """What training shows as 'no condition' is what is evaluated without one."""
    prior, z = tiny(), noise(2, 4, 32, 32)
    channels, flags = corrupt(
        noise(2, 4, 32, 32, seed=1), torch.Generator().manual_seed(0), Dropout(1.0, 0.0)
    )
    v = prior.network(z, torch.full((2,), -3.0), channels, flags)
    assert torch.equal(x_from_v(z, v, torch.full((2,), -3.0)), prior(z, -3.0))
    known = prior(z[0], -3.0, Condition.from_sum(np.ones((32, 32)), 4))
    assert (known - prior(z[0], -3.0)).abs().max() > 1e-4


def test_a_batch_is_what_its_members_are_alone():
    prior, z = tiny(), noise(3, 4, 32, 32)
    levels = torch.tensor([-9.0, -3.0, 1.0])
    together = prior(z, levels)
    for n in range(3):
        assert torch.allclose(together[n], prior(z[n], float(levels[n])), atol=1e-5)


def test_the_pullback_is_the_transposed_jacobian():
    prior, z = tiny(), noise(4, 16, 16)
    x, pull = prior.vjp(z, -2.0)
    g, d = noise(4, 16, 16, seed=1), noise(4, 16, 16, seed=2)
    assert torch.allclose(x, prior(z, -2.0))
    with torch.no_grad():
        step = 1e-2
        along = (prior(z + step * d, -2.0) - prior(z - step * d, -2.0)) / (2 * step)
    assert float((pull(g) * d).sum()) == pytest.approx(float((g * along).sum()), rel=1e-2)


@pytest.mark.parametrize(
    "shape", [(4, 16, 16), (5, 30, 21), (8, 64, 64), (7, 96, 50), (12, 64, 64), (9, 130, 100)]
)
@pytest.mark.parametrize("tiling", ["auto", "windows"])
def test_any_field_and_any_number_of_slices_from_four(shape, tiling):
    prior = tiny(tiling=tiling)
    z = noise(*shape)
    x, pull = prior.vjp(z, -2.0, Condition.from_sum(np.ones(shape[1:]), shape[0]))
    assert x.shape == z.shape
    assert torch.isfinite(x).all()
    assert torch.isfinite(pull(torch.ones_like(x))).all()


@pytest.mark.parametrize("shape", [(3, 64, 64), (8, 8, 64), (64, 64)])
def test_impossible_fields_are_refused(shape):
    with pytest.raises(ValueError, match=r"at least 4 slices|a volume is"):
        tiny()(noise(*shape), 0.0)
    with pytest.raises(ValueError, match="the condition is"):
        tiny()(noise(8, 32, 32), 0.0, Condition.from_sum(np.ones((16, 32)), 8))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="the device 'abacus' cannot be used"):
        tiny(device="abacus")
