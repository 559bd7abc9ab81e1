"""Guidance and sampler on a GPU that is not there: no tensor is left on the CPU, none has the wrong
type.

The likelihood and the prior have tests of their own kind; guides that ask a tensor for numbers, and
whole atoms, are in test_guides_devices.py. What cannot be run so: the checks for divergence and the
data term's shot noise. They are for tests marked ``gpu``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_mepdiff.prior.model import Prior
from napari_mepdiff.prior.network import UNet
from napari_mepdiff.prior.sampler import State, advance
from napari_mepdiff.reconstruction.diffusion import guide as guides_
from napari_mepdiff.reconstruction.diffusion.adam import Adam
from napari_mepdiff.reconstruction.diffusion.frames import agreement
from napari_mepdiff.reconstruction.diffusion.grid import Grid
from napari_mepdiff.reconstruction.diffusion.network import Network
from napari_mepdiff.reconstruction.diffusion.paper import Paper

from ..fake import DEVICE, built, fake_gpu, really
from ..prior.nets import TINY
from .small import crystal_problem

pytestmark = built


def on_gpu(*tensors, dtype=torch.float32):
    for tensor in tensors:
        assert tensor.device.type == DEVICE
        assert tensor.dtype == dtype


class Given:
    """A misfit whose gradient lies where the volume does."""

    def __call__(self, x):
        return 4.0, torch.ones_like(x), 1.0

    def value(self, x):
        return 4.0, 1.0


@pytest.mark.parametrize("voxel", [0.2, 0.25])
def test_the_grid_keeps_volumes_and_gradients_on_the_gpu(voxel):
    problem = replace(crystal_problem(scan=3)[0], voxel_size=(1.6, voxel, voxel))
    with fake_gpu():
        grid = Grid(replace(problem, device=DEVICE), Prior(really(UNet)(TINY), device=DEVICE))
        x = torch.randn(2, *grid.shape)  # from the CPU, as a shown volume is
        phase = grid.to_problem(x)
        on_gpu(phase, grid.to_prior(phase), grid.adjoint(torch.randn(phase.shape, device=DEVICE)))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("make", [Paper, lambda: Adam(0.5, 0.6)])
def test_network_guide_and_sampler_make_a_step_on_the_gpu(monkeypatch, make, precision):
    monkeypatch.setattr(guides_, "rms", lambda x: 1.0)
    for kind in ("paper", "adam"):
        monkeypatch.setattr(f"napari_mepdiff.reconstruction.diffusion.{kind}.rms", lambda x: 1.0)
    asked = []
    with fake_gpu():
        prior = Prior(really(UNet)(TINY), device=DEVICE, precision=precision)
        network = Network(prior, lambda: asked.append(1))
        z = torch.randn(3, 4, 32, 32, device=DEVICE)
        for part in (1 << 30, 2):  # whole, and in the parts that short memory asks for
            network.part = part
            x, pull = network(z, -3.0, None, 0, True)
            found = make()(Given(), x, pull, -3.0, 1.0)
            on_gpu(x, found.x, *([] if found.shift is None else [found.shift]))
            state = advance(State(z, -3.0), found.x, -2.0, torch.randn_like(z))
            on_gpu(state.z, advance(state, found.x, -1.0, torch.randn_like(z)).z)
        only, none = network(z, -3.0, None, 0, False)
        on_gpu(only, agreement(only))
    assert none is None
    assert asked
