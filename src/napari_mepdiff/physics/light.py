"""How many electrons pass each voxel during a scan: what a diagonal of the curvature is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from .likelihood import Likelihood
from .loss import Batch

_AT_A_TIME = 64  # windows


def light_on_canvas(likelihood: Likelihood, batch: Batch = None) -> Tensor:
    """Electrons per voxel of the canvas (H, W), of a batch of positions or the whole scan.

    Probes stand at whole pixels.
    """
    model = likelihood.model
    intensity = likelihood.probe.abs().square().sum(dim=0).reshape(-1)
    padded = intensity.new_zeros(model.windows.padded[0] * model.windows.padded[1])
    corner = model.windows.corner[likelihood.index(batch)]
    for i in range(0, len(corner), _AT_A_TIME):
        where = model.indices(corner[i : i + _AT_A_TIME])
        padded.index_add_(0, where.reshape(-1), intensity.repeat(len(where)))
    return model.windows.fold(padded.reshape(model.windows.padded))


def light(likelihood: Likelihood) -> Tensor:
    """Electrons per voxel over the whole scan, (D, H, W): Σ |ψ|² of the probe in vacuum.

    The Fisher information on the phase of a single voxel is about twice that, and the curvature of
    the amplitude misfit is about that. Positions count to the whole pixel.
    """
    model = likelihood.model
    windows = model.windows
    hits = torch.zeros(windows.padded, dtype=likelihood.real_dtype)
    corner = torch.from_numpy(windows.corner)
    hits.index_put_((corner[:, 0], corner[:, 1]), torch.ones(len(corner)).to(hits), accumulate=True)
    spectrum = torch.fft.rfft2(hits.to(likelihood.device))
    wave, out = torch.fft.ifft2(likelihood.spectrum), []
    for s in range(model.slices):
        power = wave.abs().square().sum(dim=0)
        there = torch.fft.irfft2(
            spectrum * torch.fft.rfft2(power, s=windows.padded), s=windows.padded
        )
        out.append(windows.fold(there.clamp_min(0)))
        if s < model.slices - 1:
            wave = torch.fft.ifft2(torch.fft.fft2(wave) * model.propagators[s])
    return likelihood.grouping.adjoint(torch.stack(out))
