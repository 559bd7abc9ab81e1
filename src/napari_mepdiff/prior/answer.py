"""What the data say of a first guess, as further channels of the network.

The network first predicts x̂ without the data. The slope of the misfit at x̂ then says where the
guess is wrong, and in a second pass the network sees it, in units that depend neither on the dose
nor on the scan: divided by the diagonal curvature, and damped where the data say less than the
prior. In scaled units (c times the phase), with g = −c ∂(−log p(data | x)) / ∂x per voxel, w the
electrons through it (:func:`~napari_mepdiff.physics.light.light`; 2w is the Fisher information on
its phase) and c² the prior's information (the standard deviation of a scaled volume is about 1):

1. the guess x̂;
2. the step that its depth mean should make: mean(g) / (2 Σ w + c²), the same in every slice;
3. the step of the rest: (g − mean(g)) / (2 mean(w) + c²); slices a few Å apart look nearly alike,
   so this is small where it is right;
4. how much the data say: log(1 + 100 · 2w / c²) / 4; 0 where nothing, or where they are not asked.

Steps are compressed by asinh: the potentials of heavy atoms are fifty standard deviations high.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics.light import light
from ..physics.likelihood import Likelihood
from .process import SCALE

GAIN = 4.0  # of channel 3, which is weak


def channels(guess: Tensor, slope: Tensor, electrons: Tensor, scale: float = SCALE) -> Tensor:
    """The four channels, (..., 4, D, H, W).

    Parameters
    ----------
    guess : Tensor
        (..., D, H, W), scaled.
    slope : Tensor
        (..., D, H, W), ∂(−log p(data | x)) / ∂x at the guess, per rad.
    electrons : Tensor
        (..., D, H, W), per voxel.
    scale : float
        c.
    """
    own = scale**2
    push = -scale * slope
    mean = push.mean(dim=-3, keepdim=True)
    of_mean = mean / (2 * electrons.sum(dim=-3, keepdim=True) + own)
    of_rest = (push - mean) / (2 * electrons.mean(dim=-3, keepdim=True) + own)
    say = torch.log1p(200 * electrons / own) / 4
    return torch.stack(
        [guess, of_mean.asinh().expand_as(guess), (GAIN * of_rest).asinh(), say.expand_as(guess)],
        dim=-4,
    )


def of_likelihood(
    likelihood: Likelihood, guess: Tensor, scale: float = SCALE, electrons: Tensor | None = None
) -> Tensor:
    """The channels (4, D, H, W) of a measurement, at a guess on its own voxels.

    Parameters
    ----------
    likelihood : Likelihood
        With the amplitude or the Poisson misfit.
    guess : Tensor
        (D, H, W), scaled.
    electrons : Tensor, optional
        (D, H, W), :func:`~napari_mepdiff.physics.light.light` of the likelihood if it is at hand.

    Raises
    ------
    ValueError
        If the misfit says nothing of probabilities.
    """
    factors = {"amplitude": 2.0, "poisson": 1.0}  # of the misfit in −log p
    if likelihood.misfit not in factors:
        raise ValueError(
            "what the data say is a question of probability: choose the misfit 'poisson' or "
            f"'amplitude', not {likelihood.misfit!r}"
        )
    _, gradient = likelihood(guess.detach() / scale)
    through = light(likelihood) if electrons is None else electrons
    slope = factors[likelihood.misfit] * gradient
    return channels(guess.to(slope), slope, through.to(slope), scale).to(guess)
