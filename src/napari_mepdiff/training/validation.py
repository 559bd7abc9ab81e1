"""Losses on the validation crystals, by λ and by what the network knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..prior.process import SCALE, diffuse, velocity
from ..specimen.structures import Part, Structures
from .corruption import Dropout, corrupt
from .stream import Augmentation, CrystalStream
from .weighting import weighting

GRID = (-16.0, -13.0, -10.0, -8.5, -7.0, -5.5, -4.0, -2.5, -1.0, 1.0, 3.0)  # λ
MODES = {"none": Dropout(1.0, 0.0), "sum": Dropout(0.0, 1.0), "trend": Dropout(0.0, 0.0)}


def volumes_of(
    structures: Structures,
    part: Part,
    limit: int | None = None,
    shape: tuple[int, int, int] = (8, 64, 64),
) -> Tensor:
    """The fixed volumes (n, D, H, W) in rad of a held-out part: every crystal along a, b and c."""
    return CrystalStream(structures.part(part), Augmentation()).fixed(shape, limit=limit)[0]


@torch.no_grad()
def losses(
    network: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    volumes: Tensor,
    *,
    grid: tuple[float, ...] = GRID,
    batch: int = 25,
    device: str = "cpu",
    precision: str = "bf16",
    seed: int = 0,
) -> dict[str, list[float]]:
    """Mean v-loss per λ for each kind of condition, the same noise and conditions each time.

    Parameters
    ----------
    network : callable
        (z, λ, condition, flags) -> v.
    volumes : Tensor
        (n, D, H, W) in rad.

    Returns
    -------
    dict
        'none', 'sum', 'trend': a loss per λ of the grid; and 'weighted <mode>', the mean with w(λ).
    """
    out: dict[str, list[float]] = {}
    weights = weighting(torch.tensor(grid))
    cast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
    for mode, shares in MODES.items():
        sums = [0.0] * len(grid)
        for low in range(0, len(volumes), batch):
            x = SCALE * volumes[low : low + batch].to(device)
            rng = torch.Generator().manual_seed(seed + low)
            condition, flags = corrupt(x, rng, shares)
            noise = torch.randn(x.shape, generator=rng).to(device)
            for n, value in enumerate(grid):
                log_snr = torch.full((len(x),), value, device=device)
                with cast:
                    v = network(diffuse(x, noise, log_snr), log_snr, condition, flags)
                sums[n] += float(
                    (v.float() - velocity(x, noise, log_snr)).square().mean(dim=(1, 2, 3)).sum()
                )
        out[mode] = [s / len(volumes) for s in sums]
        out[f"weighted {mode}"] = [float((torch.tensor(out[mode]) * weights).sum() / weights.sum())]
    return out
