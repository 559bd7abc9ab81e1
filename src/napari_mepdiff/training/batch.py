"""What a step of training is made of: volumes, noise, levels and conditions, all from the seed and
the step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..base.devices import to_device
from ..prior.network import ELEMENTS
from ..prior.process import SCALE
from ..specimen.packing import Packed
from .ahead import Order
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
    elements, answer : Tensor or None
        (B, 99) and (B, 4, D, H, W), for a network that takes them.
    """

    x: Tensor
    noise: Tensor
    log_snr: Tensor
    factor: Tensor
    condition: Tensor
    flags: Tensor
    elements: Tensor | None = None
    answer: Tensor | None = None


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


def order_at(settings: TrainSettings, step: int, rank: int = 0, processes: int = 1) -> Order:
    """What is drawn for a step of the process `rank` of so many."""
    shape, count = shape_at(settings, step)
    return step * processes + rank, count, shape


def generators(seed: int, device: str) -> tuple[torch.Generator, torch.Generator]:
    """Random numbers on the CPU, and where large fields of them are drawn: the same generator,
    but on an NVIDIA GPU its own."""
    host = torch.Generator().manual_seed(seed)
    if device.startswith("cuda") and torch.cuda.is_available():
        return host, torch.Generator(device).manual_seed(seed)
    return host, host


def draw(
    settings: TrainSettings,
    boxes: Packed,
    schedule: AdaptiveSchedule,
    step: int,
    rank: int = 0,
    device: str = "cpu",
) -> Batch:
    """The batch of a step, for the process `rank`, from its boxes of atoms.

    Random numbers are drawn on the CPU, so that they are the same on every device, but for an
    NVIDIA GPU, which draws its own: it would wait for them otherwise.
    """
    s = settings
    x = SCALE * CrystalStream.volumes(boxes, device)
    count = len(x)
    seed = int(np.random.default_rng([s.seed, step, rank, 3]).integers(2**62))
    rng, field = generators(seed, device)
    noise = torch.randn(x.shape, generator=field, device=field.device).to(device)
    log_snr, factor = schedule.draw(count, rng)
    # λ is stratified; keep it from going with the order of volumes
    order = torch.randperm(count, generator=rng)
    condition, flags = corrupt(x, field, Dropout(s.no_condition, s.only_sum))
    return Batch(
        x,
        noise,
        to_device(log_snr[order], device),
        to_device(factor[order], device),
        condition,
        flags,
        _told(s, boxes, seed, device) if s.network.elements else None,
    )


def _told(s: TrainSettings, boxes: Packed, seed: int, device: str) -> Tensor:
    """The elements (B, 99) that each volume is told: none, its own, or its own and false ones."""
    rng = np.random.default_rng([seed, 4])
    told = np.zeros((boxes.boxes, ELEMENTS + 1), np.float32)
    told[:, :ELEMENTS] = boxes.elements(ELEMENTS)
    told[:, ELEMENTS] = 1
    for row in np.flatnonzero(rng.random(len(told)) < s.false_elements):
        told[row, rng.integers(0, ELEMENTS, rng.integers(1, 3))] = 1
    told[rng.random(len(told)) < s.no_elements] = 0
    return to_device(told, device)
