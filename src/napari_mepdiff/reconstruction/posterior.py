"""The data as the prior sees them: −log p(y | x) in nats, for volumes on the prior's grid and scale.

Whatever the misfit, it is divided by its shot-noise expectation and multiplied by that of the Poisson likelihood, so that one unit
is one nat of a Poisson likelihood at every dose, scan and detector: a misfit of squares and a logarithm weigh the same.

A volume of the prior is c times the phase at its own energy, on its own lateral voxels. :class:`Grid` takes it to the problem's
phase and voxels, and gradients back.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..physics.likelihood import Likelihood, Misfit
from ..physics.optics import interaction_parameter
from ..prior.model import Prior
from .gradient import shot_noise
from .problem import Problem

SAME = 0.01  # relative difference of voxels that does not matter
DEPTH = 0.05  # the same for slices: an atom belongs to one slice, thicker or thinner slices hold other phases
LATERAL = (0.5, 2.0)  # ratios of voxels between which resampling makes sense
LOW_ENERGY, HIGH_ENERGY = 30.0, 1250.0  # kV


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
    resampled : bool
        Whether lateral voxels differ.

    Raises
    ------
    GridError
        If the slices are not those of the prior, or the lateral voxels are too far from its own; the message says what to do.
    """

    def __init__(self, problem: Problem, prior: Prior) -> None:
        dz = prior.voxel_size[0]
        thickness = np.asarray(problem.slice_thickness)
        depth, height, width = problem.shape
        if np.abs(thickness / dz - 1).max() > DEPTH:
            total = float(thickness.sum())
            raise GridError(
                f"the prior knows slices of {dz:g} Å, this reconstruction has {thickness.min():g} to {thickness.max():g} Å: choose "
                f"a slice thickness of {dz:g} Å ({max(1, round(total / dz))} slices for these {total:g} Å), or another solver"
            )
        ratio = [p / q for p, q in zip(problem.voxel_size[1:], prior.voxel_size[1:], strict=True)]
        if not all(LATERAL[0] <= r <= LATERAL[1] for r in ratio):
            raise GridError(
                f"the prior knows voxels of {prior.voxel_size[1]:g} × {prior.voxel_size[2]:g} Å, this reconstruction has "
                f"{problem.voxel_size[1]:.3g} × {problem.voxel_size[2]:.3g} Å (set by the largest angle of the detector): too far "
                "to resample. Crop or pad the detector towards a largest frequency of "
                f"{0.5 / prior.voxel_size[2]:g} Å⁻¹, or check the detector's calibration"
            )
        self.resampled = max(abs(r - 1) for r in ratio) > SAME
        lateral = [round(n * r) for n, r in zip((height, width), ratio, strict=True)] if self.resampled else [height, width]
        self.shape = (depth, lateral[0], lateral[1])
        if depth < 4 or min(lateral) < 16:
            raise GridError(f"the prior needs at least 4 slices of 16 × 16 of its voxels, this field has {self.shape}")
        self.device = torch.device(problem.device)
        # what c times the phase at the prior's energy is in rad at the problem's
        self.scale = interaction_parameter(problem.energy) / interaction_parameter(prior.energy) / prior.scale
        self._rows = _resampler(lateral[0], height).to(self.device)
        self._columns = _resampler(lateral[1], width).to(self.device)
        self._rows_back = _resampler(height, lateral[0]).to(self.device)
        self._columns_back = _resampler(width, lateral[1]).to(self.device)

    def to_problem(self, x: Tensor) -> Tensor:
        """Scaled volumes (..., D, H', W') to phase (..., D, H, W) in rad."""
        x = x.to(self.device, torch.float32)
        return (self._rows @ x @ self._columns.T if self.resampled else x) * self.scale

    def adjoint(self, gradient: Tensor) -> Tensor:
        """∂L/∂phase to ∂L/∂x."""
        g = self._rows.T @ gradient.float() @ self._columns if self.resampled else gradient.float()
        return g * self.scale

    def to_prior(self, phase: Tensor) -> Tensor:
        """Phase (..., D, H, W) in rad to scaled volumes; not an exact inverse where resampling loses detail."""
        x = phase.to(self.device, torch.float32)
        return (self._rows_back @ x @ self._columns_back.T if self.resampled else x) / self.scale


def _resampler(source: int, target: int) -> Tensor:
    """Matrix (target, source) of linear interpolation; with averaging where the target is coarser."""
    eye = torch.eye(source)[None]
    return F.interpolate(eye[None], (source, target), mode="bilinear", align_corners=False, antialias=True)[0, 0].T.contiguous()


class DataTerm:
    """−log p(y | x) up to a constant, in nats, of one scaled volume.

    Parameters
    ----------
    problem : Problem
    grid : Grid
    misfit : 'poisson', 'amplitude' or 'intensity'
    stride : 1 or 2
        Detector stride.
    memory : int
        Bytes for waves.

    Attributes
    ----------
    seconds : float
        Spent in the likelihood so far.
    """

    def __init__(self, problem: Problem, grid: Grid, misfit: Misfit, stride: int, memory: int) -> None:
        self.grid, self.misfit = grid, misfit
        like = problem.likelihood(misfit, detector_stride=stride, memory=memory)
        assert isinstance(like, Likelihood)
        self.likelihood, self.count = like, like.count
        self.noise = shot_noise(like, misfit, problem)  # expected misfit per pattern
        self.nats = shot_noise(like, "poisson", problem)  # expected nats per pattern
        self.electrons = float(problem.patterns.sum(dtype=np.float64)) / self.count
        self.seconds = 0.0

    def __call__(self, x: Tensor, batch: Any = None) -> tuple[float, Tensor, float]:
        """Nats of all positions (estimated from the batch), their gradient (D, H', W'), and the misfit over shot noise."""
        begin = time.perf_counter()
        used = self.count if batch is None else len(batch)
        loss, gradient = self.likelihood(self.grid.to_problem(x), batch)
        scale = self.nats / self.noise * self.count / used
        pulled = self.grid.adjoint(gradient * scale)
        self.seconds += time.perf_counter() - begin
        return loss * scale, pulled, loss / (self.noise * used)

    def value(self, x: Tensor, batch: Any = None) -> tuple[float, float]:
        """Nats and the misfit over shot noise, without the gradient: half the work."""
        begin = time.perf_counter()
        used = self.count if batch is None else len(batch)
        loss = self.likelihood.loss(self.grid.to_problem(x), batch)
        self.seconds += time.perf_counter() - begin
        return loss * self.nats / self.noise * self.count / used, loss / (self.noise * used)

    def per_electron(self, relative: float) -> float:
        """Nats per electron from a misfit over shot noise."""
        return relative * self.nats / max(self.electrons, 1e-30)


def pick_stride(problem: Problem, wanted: int) -> int:
    """2 where every second detector pixel is enough: the detector divides by 4, and the probe fits into half its window or the
    field repeats with it."""
    if wanted == 1:
        return 1
    window = problem.patterns.shape[1:]
    if any(n % 4 for n in window):
        return 1
    half = tuple(n // 2 for n in window)
    if problem.boundary == "periodic" and all(h % n == 0 for h, n in zip(half, problem.shape[1:], strict=True)):
        return 2
    intensity = problem.probe.abs().square().sum(dim=0)
    inner = intensity[half[0] // 2 : -(half[0] // 2), half[1] // 2 : -(half[1] // 2)]
    return 2 if float(inner.sum() / intensity.sum()) > 0.99 else 1
