"""Shifts of positions one by one, in a volume that does not follow.

Positions that judged a refinement had no part in it, and so no shift of their own. When nothing is
left to be judged they get one. Each is a problem of two unknowns; its step is the one that its last
two gradients ask for (Barzilai and Borwein, IMA J. Numer. Anal. 8, 141 (1988)).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PASSES = 8
FARTHEST = 0.5  # of the spread, in one step
LEAST = 0.1  # Å of a spread, as far as steps are concerned
_LONGEST = 100.0  # times the shortest step there can be


def settled(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    curvature: Tensor,
    spread: float,
    nats: float,
    passes: int = PASSES,
) -> Tensor:
    """Shifts (n, 2) in Å at which each position's misfit is least, drawn home by their spread.

    Parameters
    ----------
    gradient : callable
        Of shifts (n, 2), Å: misfit per Å, (n, 2).
    start : Tensor
        (n, 2), Å.
    curvature : Tensor
        (2,), misfit per Å²: the largest there can be along y and x.
    spread : float
        Å, rms, that shifts have.
    nats : float
        Log-likelihood per misfit.
    """
    home = 1 / (nats * spread**2)  # misfit per Å² of the prior
    farthest = FARTHEST * max(spread, LEAST)
    shift, slope = start.clone(), gradient(start) + start * home
    length = (1 / (curvature.max() + home)).expand(len(start)).clone()
    shortest = length.clone()
    for _ in range(passes):
        step = (-length[:, None] * slope).clamp(-farthest, farthest)
        shift = shift + step
        now = gradient(shift) + shift * home
        change = (step * (now - slope)).sum(dim=1)
        wanted = step.square().sum(dim=1) / change.clamp(min=1e-30)
        length = torch.where(change > 0, wanted, 2 * length).clamp(shortest, _LONGEST * shortest)
        slope = now
    return shift
