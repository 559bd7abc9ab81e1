"""What a refinement expects of any specimen, before it has seen data."""

from __future__ import annotations

import math

from ...physics.optics import interaction_parameter, wavelength
from ..problem import Problem
from .positions_block import slope_power


def depth_width(problem: Problem) -> float:
    """A tenth of the depth resolution λ/α² in slices: finer than data can tell."""
    _, dy, dx = problem.voxel_size
    spread = slope_power(problem.probe, (dy, dx)).sum() / (4 * math.pi**2 * problem.electrons)
    k_max = math.sqrt(2 * float(spread))  # of an evenly lit aperture
    resolution = 1 / (wavelength(problem.energy) * k_max**2)
    return max(0.3, 0.1 * resolution / problem.voxel_size[0])


def penalty(problem: Problem, potential: float) -> float:
    """Nats per rad: phases are spread exponentially about what a mean inner potential (V) makes.

    Maximum entropy for what is not negative and has that mean; atoms stand out against it.
    """
    if potential == 0:
        return 0.0
    return 1 / (interaction_parameter(problem.energy) * potential * problem.voxel_size[0])
