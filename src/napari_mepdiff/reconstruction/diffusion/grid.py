"""Grid: between the prior's volumes and the problem's.

A volume of the prior is c times the phase at its own energy, on its own lateral voxels. The grid
takes it to the problem's phase and voxels, and gradients back. On an extended canvas the prior sees
the part that probes light up; around it the specimen is vacuum.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...physics.optics import interaction_parameter
from ...prior.model import Prior
from ..problem import Problem

SAME = 0.01  # relative difference of voxels that does not matter
# the same for slices: an atom belongs to one slice, thicker or thinner ones hold other phases
DEPTH = 0.05
LATERAL = (0.5, 2.0)  # ratios of voxels between which resampling makes sense
LIT = 0.97  # of a probe's electrons lie within the radius by which the field is widened


class GridError(ValueError):
    """A measurement whose voxels the prior does not know."""


class Grid:
    """Between the prior's volumes and the problem's.

    Parameters
    ----------
    problem : Problem
    prior : Prior

    Attributes
    ----------
    shape : (D, H, W)
        Voxels of the prior's volumes.
    window : (slice, slice)
        Rows and columns of the problem's canvas that the prior sees.
    resampled : bool
        Whether lateral voxels differ.

    Raises
    ------
    GridError
        If the slices are not those of the prior, or the lateral voxels are too far from its own;
        the message says what to do.
    """

    def __init__(self, problem: Problem, prior: Prior) -> None:
        dz = prior.voxel_size[0]
        thickness = np.asarray(problem.slice_thickness)
        depth = problem.shape[0]
        self.window = lit(problem)
        self._canvas = problem.shape[1:]
        height, width = (part.stop - part.start for part in self.window)
        if np.abs(thickness / dz - 1).max() > DEPTH:
            total = float(thickness.sum())
            raise GridError(
                f"the prior knows slices of {dz:g} Å, this reconstruction has "
                f"{thickness.min():g} to {thickness.max():g} Å: choose a slice thickness of "
                f"{dz:g} Å ({max(1, round(total / dz))} slices for these {total:g} Å), of which "
                "the physics may take several together, or another solver"
            )
        ratio = [p / q for p, q in zip(problem.voxel_size[1:], prior.voxel_size[1:], strict=True)]
        if not all(LATERAL[0] <= r <= LATERAL[1] for r in ratio):
            raise GridError(
                f"the prior knows voxels of {prior.voxel_size[1]:g} × {prior.voxel_size[2]:g} Å, "
                f"this reconstruction has {problem.voxel_size[1]:.3g} × "
                f"{problem.voxel_size[2]:.3g} Å (set by the largest angle of the detector): too "
                "far to resample. Crop or pad the detector towards a largest frequency of "
                f"{0.5 / prior.voxel_size[2]:g} Å⁻¹, or check the detector's calibration"
            )
        self.resampled = max(abs(r - 1) for r in ratio) > SAME
        lateral = (
            [round(n * r) for n, r in zip((height, width), ratio, strict=True)]
            if self.resampled
            else [height, width]
        )
        self.shape = (depth, lateral[0], lateral[1])
        if depth < 4 or min(lateral) < 16:
            raise GridError(
                "the prior needs at least 4 slices of 16 × 16 of its voxels, this field has "
                f"{self.shape}"
            )
        self.device = torch.device(problem.device)
        # what c times the phase at the prior's energy is in rad at the problem's
        self.scale = (
            interaction_parameter(problem.energy)
            / interaction_parameter(prior.energy)
            / prior.scale
        )
        self._rows = _resampler(lateral[0], height).to(self.device)
        self._columns = _resampler(lateral[1], width).to(self.device)
        self._rows_back = _resampler(height, lateral[0]).to(self.device)
        self._columns_back = _resampler(width, lateral[1]).to(self.device)

    def to_problem(self, x: Tensor) -> Tensor:
        """Scaled volumes (..., D, H', W') to phase (..., D, H, W) in rad."""
        x = x.to(self.device, torch.float32)
        x = (self._rows @ x @ self._columns.T if self.resampled else x) * self.scale
        rows, columns = self.window
        sides = (columns.start, self._canvas[1] - columns.stop)
        return F.pad(x, (*sides, rows.start, self._canvas[0] - rows.stop))

    def adjoint(self, gradient: Tensor) -> Tensor:
        """∂L/∂phase to ∂L/∂x."""
        g = gradient.float()[..., self.window[0], self.window[1]]
        return (self._rows.T @ g @ self._columns if self.resampled else g) * self.scale

    def to_prior(self, phase: Tensor) -> Tensor:
        """Phase (..., D, H, W) in rad to scaled volumes.

        Not an exact inverse where resampling loses detail.
        """
        x = phase.to(self.device, torch.float32)[..., self.window[0], self.window[1]]
        return (self._rows_back @ x @ self._columns_back.T if self.resampled else x) / self.scale


def lit(problem: Problem) -> tuple[slice, slice]:
    """Rows and columns of the canvas that probes light up; all of it where the field repeats."""
    height, width = problem.shape[1:]
    if problem.boundary == "periodic":
        return slice(0, height), slice(0, width)
    pixel = np.array(problem.voxel_size[1:])
    power = problem.probe.abs().square().sum(dim=0).cpu().double().numpy()
    y, x = ((np.arange(n) - n // 2) * step for n, step in zip(power.shape, pixel, strict=True))
    radius = np.hypot(y[:, None], x).ravel()
    order = radius.argsort()
    inside = power.ravel()[order].cumsum() / power.sum()
    reach = radius[order][min(int(np.searchsorted(inside, LIT)), len(order) - 1)]
    low = np.floor((problem.positions.min(axis=0) - reach) / pixel).astype(int)
    high = np.ceil((problem.positions.max(axis=0) + reach) / pixel).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, (height, width))
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _resampler(source: int, target: int) -> Tensor:
    """Matrix (target, source) of linear interpolation, averaging where the target is coarser."""
    eye = torch.eye(source)[None]
    return F.interpolate(
        eye[None], (source, target), mode="bilinear", align_corners=False, antialias=True
    )[0, 0].T.contiguous()
