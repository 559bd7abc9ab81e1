"""Fields larger than those trained on: overlapping windows, each evaluated by itself and blended
smoothly.

Windows repeat at fixed distances from a random offset, so that over the steps of a run no seam
stays in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WINDOW = (8, 64, 64)  # voxels that the network was trained on
OVERLAP = (4, 24, 24)
Evaluate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (z, λ, condition, flags) -> v


@dataclass(frozen=True)
class Windows:
    """Where windows lie in a volume and how they fade into each other.

    Attributes
    ----------
    shape : (d, h, w)
        Voxels of a window.
    corners : list of (z, y, x)
        First voxel of each; a window that passes the far side of a periodic field goes on at the
        near one.
    weight : Tensor
        (d, h, w), what a window counts; never quite zero.
    """

    shape: tuple[int, int, int]
    corners: list[tuple[int, int, int]]
    weight: Tensor

    @classmethod
    def over(
        cls,
        field: tuple[int, int, int],
        rng: np.random.Generator,
        periodic: bool,
        device: torch.device | str = "cpu",
    ) -> Windows:
        """Windows over a field (D, H, W), at an offset drawn from `rng`; every voxel is covered.

        A periodic field goes on at its far side laterally; along the beam nothing does.
        """
        sides = [min(w, n) for w, n in zip(WINDOW, field, strict=True)]
        first = [
            starts(n, w, o, rng, periodic and axis > 0)
            for axis, (n, w, o) in enumerate(zip(field, sides, OVERLAP, strict=True))
        ]
        z, y, x = (
            fade(w, o, device) if len(s) > 1 else torch.ones(w, device=device)
            for w, o, s in zip(sides, OVERLAP, first, strict=True)
        )
        corners = [(a, b, c) for a in first[0] for b in first[1] for c in first[2]]
        return cls((sides[0], sides[1], sides[2]), corners, z[:, None, None] * y[:, None] * x)


def in_windows(
    evaluate: Evaluate,
    windows: Windows,
    z: Tensor,
    level: Tensor,
    condition: Tensor,
    flags: Tensor,
    trend: bool,
    batch: int,
) -> Tensor:
    """v (B, D, H, W) from overlapping windows.

    Parameters
    ----------
    evaluate : callable
        The network on windows (n, d, h, w) with conditions (n, C, d, h, w).
    windows : Windows
    z : Tensor
        (B, D, H, W).
    level : Tensor
        λ, (B,).
    condition, flags : Tensor
        (C, D, H, W), one for all, or (B, C, D, H, W); depth mean and trend are the first two
        channels. Flags (3,).
    trend : bool
        Whether the condition says something of depth, so that its mean is taken window by window.
    batch : int
        Windows at a time.
    """
    count, field, device = len(z), z.shape[1:], z.device
    total, norm = torch.zeros_like(z), torch.zeros(field, device=device)
    every = torch.arange(count, device=device)[:, None, None, None]
    for low in range(0, len(windows.corners), batch):
        places = [
            _mesh(corner, windows.shape, field, device)
            for corner in windows.corners[low : low + batch]
        ]
        many = len(places) * count
        parts = torch.stack([z[:, a, b, c] for a, b, c in places])  # (windows, B, d, h, w)
        known = torch.stack([condition[..., a, b, c] for a, b, c in places])
        if known.ndim == 5:  # one for all volumes
            known = known.repeat_interleave(count, 0)
        known = known.reshape(many, *known.shape[-4:])
        if trend:
            known = own_mean(known)
        v = evaluate(
            parts.reshape(many, *windows.shape),
            level.repeat(len(places)),
            known,
            flags.expand(many, len(flags)),
        ).reshape(parts.shape)
        for part, (a, b, c) in zip(v, places, strict=True):
            total = total.index_put((every, a, b, c), part * windows.weight, accumulate=True)
            norm.index_put_((a, b, c), windows.weight, accumulate=True)
    return total / norm


def own_mean(known: Tensor) -> Tensor:
    """Conditions (n, C, d, h, w), the first two channels split anew, so that mean and trend are
    those of the window's own slices.
    """
    volume = known[:, :2].sum(dim=1)
    mean = volume.mean(dim=1, keepdim=True).expand_as(volume)
    return torch.cat([torch.stack([mean, volume - mean], dim=1), known[:, 2:]], dim=1)


def starts(
    length: int, window: int, overlap: int, rng: np.random.Generator, periodic: bool
) -> list[int]:
    """Where windows begin along one axis, at a random offset; every voxel is covered."""
    if length <= window:
        return [0]
    step = window - min(overlap, window // 2)
    if periodic:
        count = -(-length // step)
        first = int(rng.integers(length))
        return [(first + round(i * length / count)) % length for i in range(count)]
    room = length - window
    count = -(-room // step) + 1
    slack = (count - 1) * step - room
    begin = int(rng.integers(slack + 1)) if slack else 0
    return sorted({min(max(i * step - begin, 0), room) for i in range(count)} | {0, room})


def fade(window: int, overlap: int, device: torch.device | str = "cpu") -> Tensor:
    """Weights (window,) that rise from the rims over the overlap, never quite zero."""
    ramp = (torch.arange(window, device=device) + 0.5) / max(1, min(overlap, window // 2))
    ramp = torch.minimum(ramp, ramp.flip(0)).clamp_max(1.0)
    return torch.sin(ramp * torch.pi / 2).square().clamp_min(1e-4)


def _mesh(
    corner: tuple[int, int, int],
    window: tuple[int, int, int],
    field: torch.Size,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (d, h, w) of a window's voxels along each axis of the field."""
    sides = [
        (torch.arange(w, device=device) + start) % n
        for start, w, n in zip(corner, window, field, strict=True)
    ]
    z, y, x = torch.meshgrid(*sides, indexing="ij")
    return z, y, x
