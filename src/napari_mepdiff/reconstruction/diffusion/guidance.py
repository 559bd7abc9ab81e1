"""Guidance: its kinds by name, and its schedules g(λ), which say how strongly the data act at each
noise level (paper, section 3, figure 4 and table 2).

All schedules are 1 at their highest; the guidance weight multiplies them. What weight 1 means
belongs to each kind of guidance, see :mod:`.guides`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

GuidanceKind = Literal["auto", "atoms", "newton", "decoupled", "adam", "paper"]
FREE_VOXELS: GuidanceKind = "newton"  # what auto takes where whole atoms cannot be sampled
GuidanceSchedule = Literal["shifted-sigmoid", "alpha", "constant", "curve"]
SHIFT = 4.0  # λ at which the paper's schedule has fallen to √½


def guidance(
    schedule: GuidanceSchedule, log_snr: float, curve: Sequence[tuple[float, float]] = ()
) -> float:
    """g(λ).

    Parameters
    ----------
    schedule : {'shifted-sigmoid', 'alpha', 'constant', 'curve'}
        'shifted-sigmoid': sigmoid(4 − λ)^½, the paper's; 'alpha': α = sigmoid(λ)^½, rising, the
        usual one; 'constant': 1; 'curve': straight lines between the points, constant beyond.
    log_snr : float
        λ.
    curve : sequence of (λ, g)
        For 'curve', λ rising.

    Raises
    ------
    ValueError
        If the schedule is unknown or the curve has no points.
    """
    if schedule == "shifted-sigmoid":
        return math.sqrt(_sigmoid(SHIFT - log_snr))
    if schedule == "alpha":
        return math.sqrt(_sigmoid(log_snr))
    if schedule == "constant":
        return 1.0
    if schedule != "curve":
        raise ValueError(f"schedule is shifted-sigmoid, alpha, constant or curve, got {schedule!r}")
    if not curve:
        raise ValueError("a free curve needs at least one point (λ, g)")
    if log_snr <= curve[0][0]:
        return curve[0][1]
    for (low, before), (high, after) in pairwise(curve):
        if log_snr <= high:
            return before + (after - before) * (log_snr - low) / (high - low)
    return curve[-1][1]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
