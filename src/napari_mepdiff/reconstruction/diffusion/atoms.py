"""Whole atoms within a run: found once, and moved between slices after each pass of the network."""

from __future__ import annotations

import torch
from torch import Tensor

from ..atoms.occupancy import Occupancy
from ..run import State
from .levels import samples
from .posterior import Posterior

CHAINS = 64
# voxels of a slice beyond which auto leaves whole atoms alone: minutes for each sampling
WIDE = 128 * 128
FIRST_FIT = 15  # gradients for what the columns do not explain, before the first sampling


def find_atoms(posterior: Posterior, known: Tensor) -> Occupancy:
    """Columns of atoms, from the sum over depth of an ordinary solution (D, H, W) in rad.

    Raises
    ------
    TooManyAtoms, ValueError
        If there are too many to sample, or none.
    """
    s, p, control = posterior.run.settings, posterior.problem, posterior.run.control
    control.say("counting the atoms of each column")
    return Occupancy.from_sum(
        posterior.poisson(),
        known.sum(dim=0).cpu().numpy(),
        s.elements,
        p.voxel_size[1:],
        p.energy,
        band_limit=p.band_limit,
        chains=max(CHAINS, samples(s, "atoms")),
        seed=s.seed,
        poll=posterior.poll,
    )


def restored_atoms(posterior: Posterior, state: State) -> Occupancy:
    """The inverse of :meth:`Occupancy.state`."""
    p = posterior.problem
    return Occupancy.from_state(posterior.poisson(), state, p.voxel_size[1:], p.energy)


def move_atoms(posterior: Posterior, occupancy: Occupancy, part: float) -> None:
    """Let the data, and the samples so far, choose the slices of the atoms.

    Parameters
    ----------
    part : float
        How far the whole run has come, 0 to 1: the temperatures fall with it.
    """
    control = posterior.run.control
    weight = max(posterior.run.settings.weight, 1e-6)
    expected = posterior.term.nats * posterior.term.count
    occupancy.settle(part, weight, posterior.poll, control.say, expected)


def atoms_and_samples(posterior: Posterior, occupancy: Occupancy, x: Tensor) -> Tensor:
    """All answers there are, (chains + K, D, H, W) in rad: they say how sure the mean is."""
    chains = occupancy.volume(occupancy.means)
    return torch.cat([chains, posterior.grid.to_problem(x)])
