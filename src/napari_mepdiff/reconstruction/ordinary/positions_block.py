"""The positions' part of a refinement: one map of few parameters, and a small shift of each.

A wrong scan step, shear or rotation, and a steady drift, move all positions by one affine map; a
drift that slows down adds powers of the time. What is left is jitter, small and different for each.
Every pass gives each position one Newton step. What of these steps the map describes goes into it;
the rest moves the positions by themselves, drawn home as a Gaussian spread asks for. A common shift
moves a free volume and nothing else, so it is taken out.
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
FEW = 16  # positions, of which nothing slow can be said
LEAST_COURSE = 0.01  # of the whole time's
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
        Free ones have a slow drift, too, and a shift each.
    misfit : str
    together : bool
        Whether a common shift is free too: of a volume that is held.

    Attributes
    ----------
    map : Tensor
        (2, B), Å along (y, x) for each course of `courses`; zero is no change.
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
        self.courses = courses(home, drift=freedom == "free")
        self.map = torch.zeros((2, self.courses.shape[1]), dtype=torch.float64)
        self.free = torch.zeros_like(home)
        self.spread = SPREAD
        self.held = False
        self.scale = 1.0
        self.last = torch.zeros_like(home)

    def places(self, largest: float) -> Tensor:
        """(N, 2), Å; nothing farther than `largest` from home, or off the canvas."""
        shift = self.courses @ self.map.T + self.free
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
        mapped: bool = True,
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
        mapped : bool
            Whether the map moves.
        """
        curvature = CURVATURE[self.misfit] * slope
        self._learn(gradient)
        step = -size * self.scale * gradient[used] / curvature
        step -= self._common(step)
        about = self.courses[used]
        shared = about @ self._into_map(about, step, mapped)
        if self.freedom == "affine":
            return
        known = NATS[self.misfit] * curvature / max(1.0, misfit)
        kept = known / (known + 1 / self.spread**2)
        free = (self.free[used] + step - shared) * kept
        free -= self._common(free)
        self.free[used] = free - about @ self._into_map(about, free, mapped)

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
        """What the map can say of shifts (n, 2) goes into it; (B, 2), zero if unwanted."""
        change = torch.linalg.lstsq(about, shift).solution
        if not wanted:
            return torch.zeros_like(change)
        self.map = self.map + change.T
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
        return {"map": self.map, "free": self.free, "last": self.last, "scale": self.scale}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        for name in ("map", "free", "last"):
            setattr(self, name, state[name].clone())
        self.scale = float(state["scale"])


def courses(home: Tensor, drift: bool) -> Tensor:
    """What moves all positions together, (N, B): y and x in Å, and powers of the time, near 1.

    Patterns come in the order in which they were recorded. A drift at even speed is an affine map
    of a raster; of its square and cube in time only what no affine map does is a course of its own.
    """
    about = home - home.mean(dim=0)
    if not drift or len(home) < FEW:
        return about
    time = torch.linspace(-1, 1, len(home), dtype=home.dtype)
    powers = torch.stack([time**2, time**3], dim=1)
    known = torch.cat([torch.ones_like(time)[:, None], about], dim=1)
    rest = powers - known @ torch.linalg.lstsq(known, powers).solution
    seen = rest.square().mean(dim=0).sqrt()
    return torch.cat([about, (rest / seen.clamp(min=1e-12))[:, seen > LEAST_COURSE]], dim=1)


def slope_power(probe: Tensor, pixel_size: tuple[float, float]) -> Tensor:
    """Σ|∂P/∂(y, x)|² in electrons per Å², (2,): how much a shift of the probe changes its wave."""
    power = torch.fft.fft2(probe).abs().square().sum(dim=0).cpu().double() / probe[0].numel()
    ky = torch.fft.fftfreq(power.shape[0], pixel_size[0], dtype=torch.float64)
    kx = torch.fft.fftfreq(power.shape[1], pixel_size[1], dtype=torch.float64)
    along_y = (power.sum(dim=1) * ky.square()).sum()
    along_x = (power.sum(dim=0) * kx.square()).sum()
    return 4 * math.pi**2 * torch.stack([along_y, along_x])
