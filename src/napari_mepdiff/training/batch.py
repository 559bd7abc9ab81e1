"""What a step of training is made of: volumes, noise, levels and conditions, all from the seed and
the step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..prior.process import SCALE
from .corruption import Dropout, corrupt
from .settings import TrainSettings
from .stream import CrystalStream
from .weighting import AdaptiveSchedule

Shape = tuple[int, int, int]


class Batch(NamedTuple):
    """What a step is made of.

    Attributes
    ----------
    x, noise : Tensor
        (B, D, H, W), scaled volumes and ε.
    log_snr, factor : Tensor
        (B,), λ and w(λ) / p(λ).
    condition, flags : Tensor
        (B, 2, D, H, W) and (B, 3), see :meth:`~napari_mepdiff.prior.network.UNet.forward`.
    """

    x: Tensor
    noise: Tensor
    log_snr: Tensor
    factor: Tensor
    condition: Tensor
    flags: Tensor


def shape_at(settings: TrainSettings, step: int) -> tuple[Shape, int]:
    """Voxels and number of volumes of a step: mostly the usual shape, else fewer slices or another
    field.
    """
    s = settings
    rng = np.random.default_rng([s.seed, step, 2])
    usual = (s.slices, s.lateral, s.lateral)
    if rng.random() >= s.other_shapes:
        return usual, s.batch
    unit = s.network.stride[1]
    kind = rng.integers(3)
    if kind == 0 and s.slices > 4:
        multiple = s.network.stride[0]
        slices = int(rng.integers(4 // multiple, s.slices // multiple)) * multiple
        return (slices, s.lateral, s.lateral), s.batch
    if kind == 1:
        side = max(unit, s.lateral // 2 // unit * unit)
        return (s.slices, side, side), 2 * s.batch
    side = s.lateral * 3 // 2 // unit * unit
    return (s.slices, side, side), max(1, s.batch // 2)


def draw(
    settings: TrainSettings,
    stream: CrystalStream,
    schedule: AdaptiveSchedule,
    step: int,
    rank: int = 0,
    processes: int = 1,
    device: str = "cpu",
) -> Batch:
    """The batch of a step, for the process `rank` of so many.

    Random numbers are drawn on the CPU, so that they are the same on every device.
    """
    s = settings
    shape, count = shape_at(s, step)
    x = SCALE * stream.batch(step * processes + rank, count, shape, device)
    seed = int(np.random.default_rng([s.seed, step, rank, 3]).integers(2**62))
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(x.shape, generator=rng).to(device)
    log_snr, factor = schedule.draw(count, rng)
    # λ is stratified; keep it from going with the order of volumes
    order = torch.randperm(count, generator=rng)
    condition, flags = corrupt(x, rng, Dropout(s.no_condition, s.only_sum))
    return Batch(x, noise, log_snr[order].to(device), factor[order].to(device), condition, flags)
