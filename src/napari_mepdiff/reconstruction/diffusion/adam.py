"""Adam-guidance: adaptive moments of the guidance gradient (Belardi et al., ICLR 2026).

With the gradient g = −∇_z L(x_θ(z)) of a step, element by element,

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
    m̂ = m / (1 − β₁ⁿ),   v̂ = v / (1 − β₂ⁿ)
    z_next = sampler(z, x_θ) + ρ m̂ / (√v̂ + ε) · α(λ_next) / α(λ)

after the authors' code (github.com/christianbelardi/adam-guidance): the term is added to the latent
of the next step and divided by the α of that step alone, α(λ) / α(λ_next); the prediction itself
stays, and ρ is constant over the run. Their L is the norm of the residual, here the root of the
misfit. Their best settings for images, 100 steps: ρ 0.02 to 0.06, β₁ and β₂ mostly between 0.3 and
0.75; with 12 to 50 steps ρ is 0.05 to 0.2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .data_term import VolumeMisfit
from .guide import Guided, Pullback, mean, rms, slopes

EPSILON = 1e-8


class Adam:
    """Moments of the guidance gradient; see the module.

    Parameters
    ----------
    beta1, beta2 : float
        Decay of the moments per step.
    """

    through_network = True

    def __init__(self, beta1: float, beta2: float) -> None:
        self.betas = (beta1, beta2)
        self.first: Tensor | None = None
        self.second: Tensor | None = None
        self.count = 0

    def __call__(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        pull: Pullback | None,
        log_snr: float,
        factor: float,
        inner: int = 1,
    ) -> Guided:
        """Guide x_θ (K, D, H, W); `factor` is the weight times the strength ρ."""
        assert pull is not None
        losses, slope, misfits = slopes(likelihood, x)
        roots = torch.tensor([2 * math.sqrt(max(n, 1e-30)) for n in losses]).to(slope)
        shift = -factor * self._moments(pull(slope / roots.view(-1, 1, 1, 1)))
        return Guided(x, mean(misfits), rms(shift), 1.0, shift)

    def _moments(self, gradient: Tensor) -> Tensor:
        """m̂ / (√v̂ + ε)."""
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.count += 1
        a, b = self.betas
        self.first = a * self.first + (1 - a) * gradient
        self.second = b * self.second + (1 - b) * gradient.square()
        m, v = self.first / (1 - a**self.count), self.second / (1 - b**self.count)
        return m / (v.sqrt() + EPSILON)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"first": self.first, "second": self.second, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.first, self.second, self.count = state["first"], state["second"], int(state["count"])
