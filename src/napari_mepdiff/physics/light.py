"""How much light falls on each voxel of the canvas during a scan."""

from __future__ import annotations

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
