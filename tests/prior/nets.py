"""A network small enough for tests."""

from __future__ import annotations

import torch

from napari_mepdiff.prior.model import Prior
from napari_mepdiff.prior.network import Level, UNet, UNetConfig

TINY = UNetConfig(
    patch=4,
    levels=(Level(channels=8, blocks=1), Level(channels=16, blocks=1, attention=1)),
    embedding=16,
    head_width=16,
)


def tiny(seed: int = 0, config: UNetConfig = TINY, **fields) -> Prior:
    """A prior of random weights, the last layer's included (a fresh network returns 0)."""
    torch.manual_seed(seed)
    network = UNet(config)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    return Prior(network, precision="float32", **fields)


def noise(*shape, seed=0):
    """Unit noise that returns with its seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
