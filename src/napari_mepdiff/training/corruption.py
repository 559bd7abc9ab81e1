"""Conditions for training: true volumes made into what ordinary solvers return.

What they return was measured on validation crystals (``benchmarks/solver_outputs.py``): per depth
harmonic k of the slices (DCT-II) a gain and a coherence, about (1.05, 0.95) for k = 0,
(1.3, 0.75–0.97) for k = 1, (1.3, 0–0.6) for k = 2, and little, mostly wrong, beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def harmonics(depth: int) -> Tensor:
    """Orthonormal DCT-II (D, D): row k is the k-th harmonic over the slices."""
    n, k = np.arange(depth), np.arange(depth)[:, None]
    matrix = np.cos(math.pi * (n + 0.5) * k / depth) * math.sqrt(2 / depth)
    matrix[0] /= math.sqrt(2)
    return torch.from_numpy(matrix.astype(np.float32))


@dataclass(frozen=True)
class Dropout:
    """Shares of training samples without a condition, and with the depth sum only; the rest get a
    trend.
    """

    nothing: float = 0.35
    only_sum: float = 0.25


def corrupt(
    x: Tensor, rng: torch.Generator, shares: Dropout | None = None
) -> tuple[Tensor, Tensor]:
    """Conditions for training, from true volumes.

    Parameters
    ----------
    x : Tensor
        (B, D, H, W), scaled.
    rng : torch.Generator
        On the CPU, or where x is: random numbers are drawn where it lives.

    Returns
    -------
    condition (B, 2, D, H, W), flags (B, 3)
        The trust that the flags state is the condition's true depth correlation, a little blurred.
    """
    shares = shares or Dropout()
    batch, depth = x.shape[:2]
    device = x.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (
            low + (high - low) * torch.rand(batch, *shape, generator=rng, device=rng.device)
        ).to(device)

    matrix = harmonics(depth).to(device)
    spectrum = torch.einsum("kd,bdhw->bkhw", matrix, _lateral(x, rng))
    level = spectrum[:, :1]
    gain, coherence = _profile(batch, depth, rng)
    wrong = _wrong(spectrum, level, rng)
    size = spectrum.square().mean(dim=(2, 3), keepdim=True).sqrt()
    # a harmonic that the truth lacks is not absent in what solvers return
    size = torch.maximum(size, 0.3 * size[:, 1:].mean(dim=1, keepdim=True))
    gain, coherence = gain.to(device)[..., None, None], coherence.to(device)[..., None, None]
    trend = gain * (coherence * spectrum + (1 - coherence**2).clamp_min(0).sqrt() * size * wrong)
    trend = torch.cat([torch.zeros_like(level), trend[:, 1:]], dim=1)
    mean = level / math.sqrt(depth)
    mean = mean + uniform(-0.15, 0.15, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.5)
    mean = mean + torch.randn(mean.shape, generator=rng, device=rng.device).to(device) * uniform(
        -0.08, 0.08, 1, 1, 1
    ).clamp_min(0)
    shown = torch.einsum("kd,bkhw->bdhw", matrix, trend)
    shown = shown + torch.randn(shown.shape, generator=rng, device=rng.device).to(device) * uniform(
        -0.15, 0.15, 1, 1, 1
    ).clamp_min(0)
    shown = shown - shown.mean(dim=1, keepdim=True)
    variation = x - x.mean(dim=1, keepdim=True)
    trust = (shown * variation).sum(dim=(1, 2, 3)) / (
        shown.square().sum(dim=(1, 2, 3)) * variation.square().sum(dim=(1, 2, 3)) + 1e-12
    ).sqrt()
    trust = (trust + 0.05 * torch.randn(batch, generator=rng, device=rng.device).to(device)).clamp(
        0, 1
    )
    kind = uniform(0, 1)
    known = (kind >= shares.nothing).float()
    trended = (kind >= shares.nothing + shares.only_sum).float()
    condition = torch.stack(
        [mean.expand_as(x) * known[:, None, None, None], shown * trended[:, None, None, None]],
        dim=1,
    )
    return condition, torch.stack([known, trended, trust * trended], dim=1)


def _profile(batch: int, depth: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gain and coherence per harmonic (B, D).

    Two in three are like a solver's output, one in three is a true blur.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=rng, device=rng.device)

    k = torch.arange(depth, dtype=torch.float32, device=rng.device)[None]
    gain = uniform(0.0, 0.4, depth) * uniform(0.2, 1, 1)
    coherence = uniform(-0.2, 0.5, depth)
    if depth > 1:
        gain[:, 1], coherence[:, 1] = uniform(0.6, 1.6), uniform(0.3, 1.0) ** 0.5
    if depth > 2:
        gain[:, 2] = uniform(0.0, 1.5)
        coherence[:, 2] = coherence[:, 1] * uniform(-0.1, 0.75)
    blur = uniform(0.0, 2.5, 1)  # slices, rms of a Gaussian
    true_gain = torch.exp(-0.5 * (math.pi * k / depth * blur) ** 2)
    truly = uniform(0, 1, 1) < 0.33
    agree = 1 - uniform(0, 0.1, 1).expand(-1, depth)
    return torch.where(truly, true_gain, gain), torch.where(truly, agree, coherence)


def _wrong(spectrum: Tensor, level: Tensor, rng: torch.Generator) -> Tensor:
    """Harmonics (B, D, H, W) of unit size that say something false.

    The column's own image, heaped up or hollowed out as a slowly varying field has it, and the
    truth's other harmonics.
    """
    batch, depth, height, width = spectrum.shape
    device = spectrum.device
    field = torch.randn(
        batch, depth, max(2, height // 10), max(2, width // 10), generator=rng, device=rng.device
    ).to(device)
    field = F.interpolate(field, (height, width), mode="bilinear", align_corners=False)
    field = field + torch.randn(batch, depth, 1, 1, generator=rng, device=rng.device).to(device)
    heaped = _unit(level * field)
    other = _unit(spectrum[:, torch.randperm(depth, generator=rng, device=rng.device).to(device)])
    sign = torch.where(
        torch.rand(batch, depth, 1, 1, generator=rng, device=rng.device) < 0.5, -1.0, 1.0
    ).to(device)
    share = torch.rand(batch, 1, 1, 1, generator=rng, device=rng.device).to(device)
    return _unit(share.sqrt() * heaped + (1 - share).sqrt() * sign * other)


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=(2, 3), keepdim=True).sqrt() + 1e-6)


def _lateral(x: Tensor, rng: torch.Generator) -> Tensor:
    """Lateral resolution of solvers' volumes.

    A third as they are, a third blurred (0.1–0.3 Å rms), a third cut off at 2/3 of the largest
    frequency.
    """
    batch, _, height, width = x.shape
    ky = torch.fft.fftfreq(height, device=x.device)[:, None]
    kx = torch.fft.rfftfreq(width, device=x.device)[None]
    k2 = ky**2 + kx**2
    kind = torch.rand(batch, generator=rng, device=rng.device)
    blur = (0.5 + torch.rand(batch, generator=rng, device=rng.device)).to(x.device)[:, None, None]
    smooth = torch.exp(-2 * (math.pi * blur) ** 2 * k2)
    # abTEM's limit is at 2/3 of the largest frequency of the pattern's grid, softened here as
    # solvers leave it
    cut = torch.sigmoid((1 / 3 - k2.sqrt()) * 100)[None].expand_as(smooth)
    kind = kind.to(x.device)[:, None, None]
    transfer = torch.where(
        kind < 1 / 3, torch.ones_like(smooth), torch.where(kind < 2 / 3, smooth, cut)
    )
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer[:, None], s=(height, width))
