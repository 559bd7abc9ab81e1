"""The positions' part of a refinement: one affine map, and a small shift of each.

A wrong scan step, shear or rotation moves all positions by one affine map; what is left is drift
and jitter, small and different for each. Every pass gives each position one Newton step. What of
these steps an affine map describes goes into that map; the rest moves the positions by themselves,
drawn home as a Gaussian spread asks for. A common shift moves a free volume and nothing else, so it is taken out.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ...physics.misfit import Misfit
from .volume_block import CURVATURE, NATS

Freedom = Literal["fixed", "affine", "free"]
_LONGEST = 30.0
SPREAD = 0.1  # Å, before anything is known
LEAST_SPREAD = 0.005  # Å


class PositionsBlock:
    """Where the probe stood.

    Parameters
    ----------
    home : Tensor
        (N, 2), Å, as told, on the canvas.
    bounds : (low, high)
        (y, x) each, Å, within which windows lie on the canvas.
    freedom : 'affine' or 'free'
    misfit : str
    together : bool
        Whether a common shift is free too: of a volume that is held.

    Attributes
    ----------
    affine : Tensor
        (2, 2), the map's difference from no change.
    free : Tensor
        (N, 2), Å, shifts beyond it.
    held : bool
        Whether any position was held at the canvas's rim or at its largest shift.
    """

    def __init__(
        self,
        home: Tensor,
        bounds: tuple[Tensor, Tensor],
        freedom: Freedom,
        misfit: Misfit,
        together: bool = False,
    ) -> None:
        self.home, self.bounds, self.freedom, self.misfit = home, bounds, freedom, misfit
        self.together = together
        self.about_middle = home - home.mean(dim=0)
        self.affine = torch.zeros((2, 2), dtype=torch.float64)
        self.free = torch.zeros_like(home)
        self.spread = SPREAD
        self.held = False
        self.scale = 1.0
        self.last = torch.zeros_like(home)

    def places(self, largest: float) -> Tensor:
        """(N, 2), Å; nothing farther than `largest` from home, or off the canvas."""
        shift = self.about_middle @ self.affine.T + self.free
        wanted = self.home + shift
        found = (self.home + shift.clamp(-largest, largest)).clamp(*self.bounds)
        self.held = not torch.equal(found, wanted)
        return found

    def step(
        self,
        gradient: Tensor,
        used: Tensor,
        slope: Tensor,
        size: float,
        misfit: float,
        affine: bool = True,
    ) -> None:
        """One step of all positions that were used.

        Parameters
        ----------
        gradient : Tensor
            (N, 2), misfit per Å.
        used : Tensor
            Indices of those positions whose gradient is known.
        slope : Tensor
            (2,), see :func:`slope_power`: it gives the largest curvature there can be.
        size : float
            In Newton steps of that curvature.
        misfit : float
            Over shot noise: a model that is wrong by so much knows positions less well.
        affine : bool
            Whether the map moves.
        """
        curvature = CURVATURE[self.misfit] * slope
        self._learn(gradient)
        step = -size * self.scale * gradient[used] / curvature
        step -= self._common(step)
        about = self.about_middle[used]
        shared = about @ self._into_map(about, step, affine)
        if self.freedom == "affine":
            return
        known = NATS[self.misfit] * curvature / max(1.0, misfit)
        kept = known / (known + 1 / self.spread**2)
        free = (self.free[used] + step - shared) * kept
        free -= self._common(free)
        self.free[used] = free - about @ self._into_map(about, free, affine)

    def _common(self, shift: Tensor) -> Tensor:
        """What moves a free volume and nothing else."""
        return torch.zeros_like(shift[0]) if self.together else shift.mean(dim=0)

    def _learn(self, gradient: Tensor) -> None:
        """Longer steps while gradients keep their direction, shorter ones once they turn.

        The volume follows a shift, so that the curvature that counts is a small part of the largest
        there can be, and not known beforehand.
        """
        size = gradient.norm() * self.last.norm()
        if size > 0:
            same = float((gradient * self.last).sum() / size)
            change = 1.5 if same > 0.3 else 0.5 if same < -0.1 else 1.0
            self.scale = min(_LONGEST, max(1.0, self.scale * change))
        self.last = gradient.clone()

    def _into_map(self, about: Tensor, shift: Tensor, wanted: bool) -> Tensor:
        """What an affine map says of shifts (n, 2) goes into the map; (2, 2), zero if unwanted."""
        change = torch.linalg.lstsq(about, shift).solution
        if not wanted:
            return torch.zeros_like(change)
        self.affine = self.affine + change.T
        return change

    @property
    def stiffness(self) -> float:
        """Largest curvature of the misfit by a shift, per :func:`slope_power`."""
        return CURVATURE[self.misfit]

    def found_spread(self, used: Any) -> float:
        """Å, rms along each axis, of the shifts found of the positions `used`."""
        return max(LEAST_SPREAD, float(self.free[torch.as_tensor(used)].square().mean().sqrt()))

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"affine": self.affine, "free": self.free, "last": self.last, "scale": self.scale}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        for name in ("affine", "free", "last"):
            setattr(self, name, state[name].clone())
        self.scale = float(state["scale"])


def slope_power(probe: Tensor, pixel_size: tuple[float, float]) -> Tensor:
    """Σ|∂P/∂(y, x)|² in electrons per Å², (2,): how much a shift of the probe changes its wave."""
    power = torch.fft.fft2(probe).abs().square().sum(dim=0).cpu().double() / probe[0].numel()
    ky = torch.fft.fftfreq(power.shape[0], pixel_size[0], dtype=torch.float64)
    kx = torch.fft.fftfreq(power.shape[1], pixel_size[1], dtype=torch.float64)
    along_y = (power.sum(dim=1) * ky.square()).sum()
    along_x = (power.sum(dim=0) * kx.square()).sum()
    return 4 * math.pi**2 * torch.stack([along_y, along_x])
