"""The prior on a GPU that is not there: no tensor is left on the CPU, and none has the wrong type.

Where a user has a GPU these mistakes end a run after minutes, and no machine without one would show
them.

What cannot be run so, since it asks a tensor for a number, or a driver for memory: the checks that
a condition is finite (they are made on the CPU), the check of a training step's gradient, the
halving of batches where memory is short, agreement of the numbers with the CPU, and determinism.
They are for tests marked ``gpu``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from napari_mepdiff.prior.condition import Condition
from napari_mepdiff.prior.model import Prior
from napari_mepdiff.prior.network import UNet
from napari_mepdiff.prior.sampler import State, advance, sample

from ..fake import DEVICE, built, fake_gpu, really
from .nets import TINY, noise, tiny

pytestmark = built
WIDE = (10, 80, 96)  # slices and voxels of which windows are needed


def condition(kind, shape=(8, 32, 32)):
    if kind == "none":
        return None
    if kind == "sum":
        return Condition.from_sum(np.ones(shape[1:]), shape[0])
    return Condition.from_volume(np.ones(shape), 0.3)


def test_the_backward_pass_that_is_lent_is_pytorchs():
    model, z = tiny(), noise(4, 16, 16)
    known = condition("volume", (4, 16, 16))
    _, pull = model.vjp(z, -2.0, known)
    with fake_gpu(), unset_fake_temporarily():
        _, lent = model.vjp(z, -2.0, known)
        found = lent(noise(4, 16, 16, seed=1))
    assert torch.allclose(found, pull(noise(4, 16, 16, seed=1)), atol=1e-6)


def prior(precision="bf16", **options):
    return Prior(really(UNet)(TINY), device=DEVICE, precision=precision, **options)


@pytest.mark.parametrize("kind", ["none", "sum", "volume"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("tiling", ["whole", "windows"])
def test_prediction_and_pullback_stay_on_the_gpu(kind, precision, tiling):
    shape = WIDE if tiling == "windows" else (8, 32, 32)
    known, inside = condition(kind, shape), []
    with fake_gpu():
        model = prior(precision, tiling=tiling)
        model.network.stem.register_forward_hook(lambda m, i, out: inside.append(out.dtype))
        z = torch.randn(2, *shape, device=DEVICE)
        x = model(z, -3.0, known)
        guided, pull = model.vjp(z, torch.tensor([-3.0, 1.0], device=DEVICE), known, 5)
        back = pull(torch.randn(z.shape, device=DEVICE))
    for found in (x, guided, back):
        assert found.device.type == DEVICE
        assert found.dtype == torch.float32
        assert found.shape == z.shape
    assert set(inside) == {torch.bfloat16 if precision == "bf16" else torch.float32}


def test_auto_takes_bf16_where_the_gpu_has_it():
    with fake_gpu():
        assert prior("auto").precision == "bf16"


def test_a_volume_on_the_cpu_comes_back_to_the_cpu():
    with fake_gpu():
        x, pull = prior().vjp(torch.randn(8, 32, 32), -3.0)
        assert x.device.type == pull(torch.randn(8, 32, 32)).device.type == "cpu"


def test_a_step_of_the_sampler_and_whole_samples_stay_on_the_gpu():
    volume = condition("volume")
    with fake_gpu():
        z = torch.randn(2, 4, 32, 32, device=DEVICE)
        first = advance(State(z, -3.0), z, -2.0, torch.randn_like(z))
        second = advance(first, z, -1.0, torch.randn_like(z))
        drawn = sample(prior(), (4, 32, 32), steps=3, count=2)
        known = sample(prior(), steps=3, condition=volume)
    for found in (second.z, drawn, known):
        assert found.device.type == DEVICE
        assert found.dtype == torch.float32
