"""The beam's tilt in a refinement.

Free voxels take up any tilt by leaning: then it is what sets their columns upright (:mod:`.lean`).
A volume that is held does not lean, and the data say the tilt by their gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...physics.likelihood import Likelihood
from .lean import lean_of, upright
from .moments import Moments
from .volume_block import VolumeBlock

THIN = 20.0  # Å: a lean of free voxels in so little cannot be seen
LEAST = 0.1  # mrad
RATE = 0.1  # of the unit, at the first step
UNIT = 0.1  # Å by which the specimen's ends part


class TiltBlock:
    """Tilt (y, x) in mrad, along the gradient, by Adam.

    Attributes
    ----------
    value : Tensor
        (2,), mrad.
    """

    def __init__(self, tilt: tuple[float, float], thickness: tuple[float, ...]) -> None:
        self.value = torch.tensor(tilt, dtype=torch.float64)
        self.unit = 1e3 * UNIT / sum(thickness)
        self.moments = Moments(self.value)

    def step(self, gradient: Tensor, rate: float, likelihood: Likelihood) -> None:
        """One step against the gradient of a batch, per mrad."""
        way = self.moments.direction(gradient * self.unit)
        self.value = self.value - rate * RATE * self.unit * way
        likelihood.set_gaps(tilt=(float(self.value[0]), float(self.value[1])))

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"value": self.value, **self.moments.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        self.value = state["value"].clone()
        self.moments.load(state)


def set_upright(
    volume: VolumeBlock,
    likelihood: Likelihood,
    slice_thickness: tuple[float, ...],
    pixel_size: tuple[float, float],
    non_negative: bool,
) -> None:
    """What leans in a volume of free voxels becomes the beam's tilt."""
    if sum(slice_thickness[:-1]) < THIN:
        return
    depth = torch.tensor([0.0, *slice_thickness[:-1]]).cumsum(0)
    lit = volume.light > 0.1 * volume.light.max()
    lean = lean_of(volume.x * lit, depth, pixel_size)
    if max(map(abs, lean)) < LEAST:
        return
    tilt = likelihood.tilt
    likelihood.set_gaps(tilt=(tilt[0] - lean[0], tilt[1] - lean[1]))
    volume.put(upright(volume.sources, depth, pixel_size, lean), non_negative)
    volume.velocity = upright(volume.velocity, depth, pixel_size, lean)
