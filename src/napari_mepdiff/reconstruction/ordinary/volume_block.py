"""The volume's part of a refinement: descent over the curvature of the misfit.

A small phase x at a voxel changes the wave there by i x P. Where the modelled amplitude is near the
measured one, Σ (√I − √n)² therefore has the curvature Σ_p |P_p|², the light that fell on the voxel
during the scan, and D times that for what all D slices have in common. Divided by it, gradients are
steps in rad, the same at every dose, scan and detector (the diagonal of a Gauss–Newton matrix, as
in LSQ-ML: Odstrčil et al., Opt. Express 26, 3108 (2018)). A slow mean of them (momentum) allows
steps far above one: what the slices do not have in common has a much smaller curvature.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...physics.light import light_on_canvas
from ...physics.likelihood import Likelihood
from ...physics.misfit import Misfit

MOMENTUM = 0.9
_FINE = 0.1  # of the power of coarse detail, below which fine detail is not forced
EACH = 4.0  # of a Gauss–Newton step, for each slice there is
RISE = 1.2  # of the misfit from one pass to the next
DAMPING = 0.1  # of the brightest light: voxels that hardly any light reaches stay calm
CURVATURE: dict[Misfit, float] = {"amplitude": 1.0, "poisson": 2.0}
"""Of the misfits per electron; that of squared intensities depends on the pattern."""
NATS: dict[Misfit, float] = {"amplitude": 2.0, "poisson": 1.0}
"""Log-likelihood per misfit."""


class VolumeBlock:
    """Phases and their momentum.

    The volume is what lies in `sources` (not negative, if so wanted) spread by a Gaussian in the
    plane of the slices: no atom is narrower, and what detail finer than that would say is noise.

    Attributes
    ----------
    x : Tensor
        (D, H, W), rad.
    sources : Tensor
        (D, H, W), rad.
    """

    def __init__(self, start: Tensor, misfit: Misfit, width: float = 0.0) -> None:
        self.sources, self.misfit = start, misfit
        self.velocity = torch.zeros_like(start)
        self._transfer = _gaussian(start, width) if width > 0 else None
        self.light = torch.ones_like(start[0])
        self.slower, self.last = 1.0, 0.0
        self.x = self._spread(start)

    def _spread(self, values: Tensor) -> Tensor:
        if self._transfer is None:
            return values
        size = (values.shape[-2], values.shape[-1])
        return torch.fft.irfft2(torch.fft.rfft2(values) * self._transfer, s=size)

    def _sharpen(self, gradient: Tensor) -> Tensor:
        """The gradient by the sources, with a step that is as long in the volume as without them
        as far as they can make its detail: the transfer G of the Gaussian becomes G / (G² + ε).
        """
        if self._transfer is None:
            return gradient
        size = (gradient.shape[-2], gradient.shape[-1])
        inverse = self._transfer / (self._transfer.square() + _FINE)
        return torch.fft.irfft2(torch.fft.rfft2(gradient) * inverse, s=size)

    def put(self, sources: Tensor, non_negative: bool) -> None:
        """Replace the sources."""
        self.sources = sources.clamp(min=0) if non_negative else sources
        self.x = self._spread(self.sources)

    def pace(self, wanted: float) -> float:
        """The step as far as it is safe.

        A long one is for what the slices do not have in common, which few of them leave little of.
        """
        return min(wanted, EACH * len(self.x)) * self.slower

    def heed(self, loss: float) -> None:
        """A misfit that rises from pass to pass asks for smaller steps."""
        if self.last and loss > RISE * self.last:
            self.slower *= 0.5
        self.last = loss

    def renew(self, likelihood: Likelihood) -> None:
        """Take the light of the whole scan from the present probe and positions."""
        self.light = light_on_canvas(likelihood)

    def step(
        self,
        gradient: Tensor,
        likelihood: Likelihood,
        batch: NDArray[np.int64],
        size: float,
        penalty: float,
        non_negative: bool,
    ) -> None:
        """Against the gradient of a batch, and of `penalty` (nats per rad) on every source.

        Where its positions happen to crowd, the curvature is theirs: else few of them, far apart,
        would make steps too long.
        """
        scale = likelihood.count / len(batch)
        crowd = light_on_canvas(likelihood, batch) * scale
        light = torch.maximum(crowd, self.light) + DAMPING * self.light.max()
        curvature = CURVATURE[self.misfit] * len(self.x) * light
        slope = self._sharpen(gradient) * scale + penalty / NATS[self.misfit]
        self.velocity.lerp_(slope / curvature, 1 - MOMENTUM)
        self.put(self.sources - size * self.velocity, non_negative)

    def smooth_depth(self, weight: float, width: float) -> None:
        """Draw every slice towards its neighbours: Gaussian blur of `width` slices rms, so much of
        it."""
        count = len(self.sources)
        if weight == 0 or count < 2:
            return
        at = torch.arange(count, dtype=torch.float64)
        kernel = torch.exp(-0.5 * ((at[:, None] - at) / width).square())
        kernel /= kernel.sum(dim=1, keepdim=True)
        blurred = kernel.to(self.sources) @ self.sources.reshape(count, -1)
        self.put(torch.lerp(self.sources, blurred.reshape(self.sources.shape), weight), False)

    def state(self) -> dict[str, Any]:
        """What the next step depends on; the light is renewed at each pass."""
        pace = {"slower": self.slower, "last": self.last}
        return {"sources": self.sources, "velocity": self.velocity, **pace}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        self.velocity.copy_(state["velocity"])
        self.slower, self.last = float(state["slower"]), float(state["last"])
        self.put(state["sources"].to(self.sources).clone(), False)


def _gaussian(like: Tensor, width: float) -> Tensor:
    """Fourier transfer (H, W // 2 + 1) of a Gaussian of so many pixels rms."""
    h, w = like.shape[-2:]
    fy = torch.fft.fftfreq(h, device=like.device)[:, None]
    fx = torch.fft.rfftfreq(w, device=like.device)
    return torch.exp(-2 * math.pi**2 * width**2 * (fy * fy + fx * fx))
