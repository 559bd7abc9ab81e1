"""How far a volume leans, and the beam tilt that sets it upright.

Data recorded with the beam tilted by θ against the specimen's columns are those of a specimen whose
slices are displaced by −z tan θ: free voxels take up either. What fixes it is that atoms stand in
columns along the depth. So the displacement per depth is found that makes the depth sum sharpest;
the slices are moved back by it, and the propagator gets the tilt. Patterns change by next to
nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LARGEST = 20.0  # mrad
_COARSE = 1.0  # mrad, steps of the first search
_FINEST = 0.05  # mrad
_RESOLUTION = 1.25  # 1/Å: finer detail has more noise than atoms


def lean_of(volume: Tensor, depth: Tensor, pixel_size: tuple[float, float]) -> tuple[float, float]:
    """Displacement (y, x) per depth, in mrad, that makes the depth sum sharpest when taken back.

    Parameters
    ----------
    volume : Tensor
        (D, H, W), rad.
    depth : Tensor
        (D,), Å, of each slice.
    pixel_size : (dy, dx)
        Å.
    """
    x = volume.detach().to("cpu", torch.float32)
    x = x - x.mean(dim=(1, 2), keepdim=True)
    ky = torch.fft.fftfreq(x.shape[1], pixel_size[0])[:, None]
    kx = torch.fft.rfftfreq(x.shape[2], pixel_size[1])[None, :]
    inside = (ky * ky + kx * kx < _RESOLUTION**2).nonzero(as_tuple=True)
    spectra = torch.fft.rfft2(x)[:, inside[0], inside[1]]
    ky, kx = ky[inside[0], 0], kx[0, inside[1]]
    z = (depth - depth.mean()).to(torch.float32) * 1e-3

    def sharpness(y: float, x_: float) -> float:
        turn = torch.polar(
            torch.ones_like(spectra.real), 2 * math.pi * z[:, None] * (ky * y + kx * x_)
        )
        return float((spectra * turn).sum(dim=0).abs().square().sum())

    steps = np.arange(-LARGEST, LARGEST + _COARSE / 2, _COARSE)
    # one axis after the other, twice, then ever smaller steps around the best
    best = [0.0, 0.0]
    for axis in (0, 1, 0, 1):
        trials = [sharpness(*_with(best, axis, s)) for s in steps]
        best[axis] = float(steps[int(np.argmax(trials))])
    width = _COARSE
    while width > _FINEST:
        width /= 2
        near = [(best[0] + a * width, best[1] + b * width) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        best = list(near[int(np.argmax([sharpness(*p) for p in near]))])
    return best[0], best[1]


def upright(
    volume: Tensor, depth: Tensor, pixel_size: tuple[float, float], lean: tuple[float, float]
) -> Tensor:
    """The volume with every slice moved back by lean (mrad) times its depth (Å)."""
    ky = torch.fft.fftfreq(volume.shape[1], pixel_size[0], device=volume.device)[:, None]
    kx = torch.fft.rfftfreq(volume.shape[2], pixel_size[1], device=volume.device)[None, :]
    shift = depth.to(volume.device, volume.dtype) * 1e-3
    turn = 2 * math.pi * shift[:, None, None] * (ky * lean[0] + kx * lean[1])
    spectra = torch.fft.rfft2(volume) * torch.polar(torch.ones_like(turn), turn)
    return torch.fft.irfft2(spectra, s=tuple(volume.shape[1:]))


def _with(pair: list[float], axis: int, value: float) -> tuple[float, float]:
    return (value, pair[1]) if axis == 0 else (pair[0], value)
