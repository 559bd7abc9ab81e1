"""How the amplitude falls off at the edge of the condenser aperture, and its derivatives.

Two shapes, both centred on the semi-angle and `width` mrad wide: a raised cosine, and the straight
line that abTEM takes for ``soft=True``, there as wide as one detector pixel (antialiasing).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Edge = Literal["cosine", "linear"]


def edge_amplitude(angle: Tensor, semi_angle: float, width: float, edge: Edge = "cosine") -> Tensor:
    """1 inside, 0 outside, ½ at the semi-angle of a soft edge.

    Parameters
    ----------
    angle : Tensor
        Scattering angles, mrad.
    semi_angle, width : float
        mrad; a width of 0 is a hard edge.
    edge : 'cosine' or 'linear'
        Shape of the fall.
    """
    if width == 0:
        return (angle <= semi_angle).to(angle.dtype)
    t = ((angle - semi_angle) / width + 0.5).clamp(0, 1)
    return 1 - t if edge == "linear" else 0.5 * (1 + torch.cos(math.pi * t))


def edge_derivatives(
    angle: Tensor, semi_angle: float, width: float, edge: Edge = "cosine"
) -> tuple[Tensor, Tensor]:
    """Derivatives of :func:`edge_amplitude` by semi-angle and by width, per mrad.

    Raises
    ------
    ValueError
        If the edge is hard: the amplitude then jumps, and has no derivative.
    """
    if width == 0:
        raise ValueError(
            "a hard aperture edge has no derivative: give a soft edge of about one detector pixel"
        )
    x = (angle - semi_angle) / width
    t = x + 0.5
    inside = ((t > 0) & (t < 1)).to(angle.dtype)
    fall = inside if edge == "linear" else inside * 0.5 * math.pi * torch.sin(math.pi * t)
    return fall / width, fall * x / width
