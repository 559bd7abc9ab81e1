"""Guides that ask tensors for numbers, and whole atoms, on a GPU that is not there.

Made-up numbers are lent (:func:`tests.fake.lent_numbers`), so that the work goes on: what is seen
is whether each tensor lies where it must and has its type, in every branch. The misfit is the real
one, through grid and likelihood. What cannot be run so, and is for tests marked ``gpu``:

- the values: lengths of steps, curvatures, what a line search finds;
- the search for columns (``find_columns``, ``Occupancy.from_sum``) and the chains themselves: they
  are NumPy and compiled code on the CPU, and see no tensor; here the chains sample made-up numbers;
- the Fisher matrix with a detector mask: how many pixels it leaves is in the data;
- shot noise of the data term, checks for divergence, memory that runs out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, repeat

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.prior.model import Prior
from napari_mepdiff.prior.network import UNet
from napari_mepdiff.reconstruction.atoms.columns import Species
from napari_mepdiff.reconstruction.atoms.occupancy import Occupancy
from napari_mepdiff.reconstruction.diffusion.decoupled import Decoupled
from napari_mepdiff.reconstruction.diffusion.grid import Grid
from napari_mepdiff.reconstruction.diffusion.guide import Unguided
from napari_mepdiff.reconstruction.diffusion.network import Network
from napari_mepdiff.reconstruction.diffusion.newton import Newton

from ..fake import DEVICE, built, fake_gpu, lent_numbers, really
from ..prior.nets import TINY
from .small import crystal_problem

pytestmark = built
ANSWERS = {
    "no": lambda: repeat(False),
    "yes": lambda: repeat(True),
    "mixed": lambda: cycle([False, True, False, False, True, True, False]),
}


def on_gpu(*tensors, dtype=torch.float32):
    for tensor in tensors:
        assert tensor.device.type == DEVICE
        assert tensor.dtype == dtype


def likelihood_of(problem):
    counts = np.asarray(problem.patterns)
    return Likelihood(
        counts, problem.probe, problem.positions, problem.shape, pixel_size=problem.voxel_size[1:],
        slice_thickness=problem.slice_thickness, energy=problem.energy, misfit="poisson",
        background=1e-3, device=DEVICE,
    )  # fmt: skip


class Misfit:
    """The data term without what it reads off the data: its unit."""

    def __init__(self, grid, likelihood):
        self.grid, self.likelihood, self.asked = grid, likelihood, 0

    def __call__(self, x):
        on_gpu(x)
        self.asked += 1
        loss, gradient = self.likelihood(self.grid.to_problem(x))
        return loss, self.grid.adjoint(gradient * 0.5), 1.0

    def value(self, x):
        on_gpu(x)
        self.asked += 1
        return self.likelihood.loss(self.grid.to_problem(x)), 1.0


@pytest.fixture(params=[0.2, 0.25], ids=["same voxels", "other voxels"])
def problem(request):
    small = crystal_problem(scan=3)[0]
    return replace(small, voxel_size=(1.6, request.param, request.param))


@pytest.mark.parametrize("kind", [lambda: Newton(2), Decoupled, Unguided])
@pytest.mark.parametrize("answers", ANSWERS)
def test_a_guided_step_stays_on_the_gpu(problem, kind, answers):
    guide = kind()
    with fake_gpu(), lent_numbers(ANSWERS[answers]()):
        prior = Prior(really(UNet)(TINY), device=DEVICE)
        misfit = Misfit(Grid(replace(problem, device=DEVICE), prior), likelihood_of(problem))
        z = torch.randn(2, *misfit.grid.shape, device=DEVICE)
        for log_snr in (-3.0, -1.0):  # a Newton step remembers the curvature of the last one
            x, pull = Network(prior, lambda: None)(z, log_snr, None, 0, guide.through_network)
            asked = misfit.asked
            found = guide(misfit, x, pull, log_snr, 0.7, 3)
            on_gpu(x, found.x)
            assert found.x.shape == z.shape
            assert misfit.asked > asked
            state = guide.state()
            guide = kind()
            guide.restore(state)
        guide(misfit, x, pull, 0.0, 0.0, 3)  # without weight


def test_a_tensor_that_a_guide_leaves_behind_is_found(problem):
    """The method itself: it must fail where a GPU would."""
    with fake_gpu(), lent_numbers(repeat(False)):
        prior = Prior(really(UNet)(TINY), device=DEVICE)
        misfit = Misfit(Grid(replace(problem, device=DEVICE), prior), likelihood_of(problem))
        misfit.likelihood.model.propagators = [h.cpu() for h in misfit.likelihood.model.propagators]
        x = torch.randn(1, *misfit.grid.shape, device=DEVICE)
        with pytest.raises(RuntimeError, match="device"):
            Decoupled()(misfit, x, None, 0.0, 1.0)


@pytest.mark.parametrize("answers", ANSWERS)
def test_whole_atoms_stay_on_the_gpu(answers):
    problem = crystal_problem(scan=3)[0]
    columns = np.array([0, 0, 1])
    numbers, counts = np.array([22, 38, 38]), np.array([1, 2, 1])
    images = torch.rand(3, *problem.shape[1:])
    with fake_gpu(), lent_numbers(ANSWERS[answers]()):
        like = likelihood_of(problem)
        atoms = Occupancy(
            like, Species(columns, numbers, counts, images), problem.voxel_size[1:], 300.0, chains=4
        )
        samples = torch.randn(2, *problem.shape, device=DEVICE)
        atoms.believe(samples, 0.5)
        atoms.settle(0.5)
        volume = atoms.volume(atoms.mean)
        chains = atoms.volume(atoms.means)
        on_gpu(volume, chains, atoms.rest.image, atoms.rest.sources)
        assert chains.shape == (4, *problem.shape)
        assert atoms.amplitudes(samples).shape == (2, problem.shape[0], 3)
        state = atoms.state()
        assert {v.device.type for v in state.values() if isinstance(v, torch.Tensor)} == {"cpu"}
        again = Occupancy.from_state(like, state, problem.voxel_size[1:], 300.0)
        on_gpu(again.volume(again.mean), again.rest.sources)
