"""Losses on the validation crystals, by λ and by what the network knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..prior.network import ELEMENTS
from ..prior.process import SCALE, diffuse, velocity, x_from_v
from ..specimen.packing import pack
from ..specimen.structures import Part, Structures
from .batch import generators
from .corruption import Dropout, corrupt
from .crystals import VOXEL_SIZE
from .microscopes import ask
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


def elements_of(
    structures: Structures,
    part: Part,
    limit: int | None = None,
    shape: tuple[int, int, int] = (8, 64, 64),
) -> Tensor:
    """The elements (n, 99) in the volumes of :func:`volumes_of`, as a network takes them."""
    atoms = CrystalStream(structures.part(part), Augmentation()).fixed(shape, limit=limit)[1]
    found = torch.from_numpy(pack(atoms, shape, VOXEL_SIZE).elements(ELEMENTS))
    return torch.cat([found, torch.ones(len(found), 1)], dim=1)


@torch.no_grad()
def losses(
    network: Callable[..., Tensor],
    volumes: Tensor,
    *,
    grid: tuple[float, ...] = GRID,
    batch: int = 25,
    device: str = "cpu",
    precision: str = "bf16",
    seed: int = 0,
    elements: Tensor | None = None,
    answer: bool = False,
) -> dict[str, list[float]]:
    """Mean v-loss per λ for each kind of condition, the same noise and conditions each time.

    Parameters
    ----------
    network : callable
        (z, λ, condition, flags) -> v; and with the elements and the answer after them, if it is
        to be told those.
    volumes : Tensor
        (n, D, H, W) in rad.
    elements : Tensor, optional
        (n, 99), :func:`elements_of` the volumes, for a network that can be told them.
    answer : bool
        Whether the network is also to be shown what simulated data say of its first guess.

    Returns
    -------
    dict
        'none', 'sum', 'trend', and with nothing else known 'elements' and 'answer': a loss per λ of
        the grid; and 'weighted <mode>', the mean with w(λ).
    """
    out: dict[str, list[float]] = {}
    weights = weighting(torch.tensor(grid))
    cast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
    modes = dict(MODES)
    if elements is not None:
        modes["elements"] = MODES["none"]
    if answer:
        modes["answer"] = MODES["none"]
    for mode, shares in modes.items():
        sums = [0.0] * len(grid)
        for low in range(0, len(volumes), batch):
            x = SCALE * volumes[low : low + batch].to(device)
            rng = torch.Generator().manual_seed(seed + low)
            condition, flags = corrupt(x, rng, shares)
            noise = torch.randn(x.shape, generator=rng).to(device)
            told: tuple[Tensor, ...] = (condition, flags)
            if mode == "elements" and elements is not None:
                told = (condition, flags, elements[low : low + batch].to(device))
            for n, value in enumerate(grid):
                log_snr = torch.full((len(x),), value, device=device)
                z = diffuse(x, noise, log_snr)
                with cast:
                    v = network(z, log_snr, *told)
                if mode == "answer":
                    guess = x_from_v(z, v.float(), log_snr)
                    rng = generators(seed + low, device)[1]
                    shown = ask(guess, x, seed + low, rng, device)
                    with cast:
                        v = network(z, log_snr, *told, None, shown)
                sums[n] += float(
                    (v.float() - velocity(x, noise, log_snr)).square().mean(dim=(1, 2, 3)).sum()
                )
        out[mode] = [s / len(volumes) for s in sums]
        out[f"weighted {mode}"] = [float((torch.tensor(out[mode]) * weights).sum() / weights.sum())]
    return out
