"""How the data change the x-prediction at each noise level: x′ = guide(x_θ).

:class:`Gradient` is the paper's guidance (section 3), through the network, plain or with Adam moments (Belardi et al. 2026);
:class:`Decoupled` asks the network nothing but x_θ (DiffPIR, Zhu et al. 2023; DAPS, Zhang et al. 2024). Both work sample by
sample on latents (K, D, H, W); whole atoms are in :mod:`.occupancy`.

**What weight 1 means.** Along its direction d the paper's guidance x′ = x_θ − g d is taken to the minimum of

    L(x_θ − g d) + ‖g d‖² / 2σ²,   g = ∇L·d / (dᵀ∇²L d + ‖d‖² / σ²)

with L = −log p(y | x) in nats, σ² = sigmoid(−λ) the variance that a volume of unit variance has left at this level. A Newton
step, held back by what the prior knows: it scales with neither dose nor scan nor detector, and a low dose guides weakly. The
guidance weight and its schedule multiply g. The curvature dᵀ∇²L d comes from one more evaluation of L along d, smoothed over the
steps.

For the paper's own constants, 5000 on a squared loss of unknown scaling, the step of that size is the one reported as ``gain``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .posterior import DataTerm

BETAS = (0.9, 0.99)  # Adam-guidance: decay of the moments
REACH = 0.7  # longest step of weight 1, rms over σ: beyond it neither the quadratic form nor the network holds
SMOOTHING = 0.7  # of the logarithm of the curvature, from step to step


@dataclass
class Guided:
    """What a guide returns.

    Attributes
    ----------
    x : Tensor
        x′, (K, D, H, W), scaled.
    misfit : float
        Of x_θ over shot noise, mean over the samples; 1 when it explains the data.
    norm : float
        ‖x′ − x_θ‖ over √voxels, scaled units: how far the data moved it.
    gain : float
        g, mean over the samples.
    """

    x: Tensor
    misfit: float
    norm: float
    gain: float


class Gradient:
    """x′ = x_θ − g(λ) ∇_z L(x_θ(z)): one vector–Jacobian product of the network with the likelihood's gradient.

    Parameters
    ----------
    samples : int
        K.
    adam : bool
        Adam moments on the guidance gradient.
    """

    through_network = True

    def __init__(self, samples: int, adam: bool = False) -> None:
        self.adam = adam
        self.curvature: list[float] = [math.nan] * samples  # per unit length of d, nats
        self.gain: list[float] = [math.nan] * samples
        self.first: Tensor | None = None
        self.second: Tensor | None = None
        self.count = 0

    def __call__(self, term: DataTerm, x: Tensor, pull: Callable[[Tensor], Tensor] | None, log_snr: float, factor: float,
                 batch: Any, inner: int = 1) -> Guided:
        """Guide x_θ (K, D, H, W) at level λ; `factor` is weight · g(λ)."""
        assert pull is not None
        gradients, losses, misfits = [], [], []
        for sample in x:
            loss, gradient, misfit = term(sample, batch)
            gradients.append(gradient)
            losses.append(loss)
            misfits.append(misfit)
        slope = torch.stack(gradients).to(x)
        direction = pull(slope)
        if self.adam:
            direction = self._moments(direction)
        variance = 1 / (1 + math.exp(log_snr))
        moved = x.clone()
        for k in range(len(x)):
            d = direction[k]
            length2 = float(d.square().sum())
            along = float((slope[k] * d).sum())
            if not (length2 > 0 and along > 0):  # not downhill (old moments): this step goes without
                continue
            self._measure(term, x[k], d, losses[k], along, length2, variance, batch, k)
            longest = REACH * math.sqrt(variance * d.numel() / length2)
            self.gain[k] = min(along / (length2 * (self.curvature[k] + 1 / variance)), longest)
            moved[k] = x[k] - factor * self.gain[k] * d
        shift = float((moved - x).square().mean().sqrt())
        known = [g for g in self.gain if math.isfinite(g)]
        return Guided(moved, sum(misfits) / len(misfits), shift, sum(known) / max(1, len(known)))

    def _moments(self, direction: Tensor) -> Tensor:
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(direction), torch.zeros_like(direction)
        self.count += 1
        a, b = BETAS
        self.first = a * self.first + (1 - a) * direction
        self.second = b * self.second + (1 - b) * direction.square()
        m, v = self.first / (1 - a**self.count), self.second / (1 - b**self.count)
        scale = v.mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return m / (v.sqrt() + 0.1 * scale + 1e-30)

    def _measure(self, term: DataTerm, x: Tensor, d: Tensor, loss: float, along: float, length2: float, variance: float,
                 batch: Any, k: int) -> None:
        """dᵀ∇²L d / ‖d‖² by a trial step about as long as the last one."""
        old = self.curvature[k]
        if math.isnan(old):
            # a first trial that moves voxels by 0.05 of their standard deviation
            trial = 0.05 * math.sqrt(d.numel() / length2)
        else:
            trial = along / (length2 * (old + 1 / variance))
        there, _ = term.value(x - trial * d, batch)
        found = 2 * (there - loss + trial * along) / (trial * trial * length2)
        if not math.isfinite(found):
            return
        # downhill without bending: longer steps from now on, but not endless ones
        found = max(found, 1e-2 * along / (trial * length2))
        if not math.isnan(old):
            # quick to grow careful, slow to grow bold
            share = SMOOTHING if found < old else 0.5
            found = math.exp(share * math.log(old) + (1 - share) * math.log(found))
        self.curvature[k] = found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"curvature": list(self.curvature), "gain": list(self.gain), "first": self.first, "second": self.second,
                "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.curvature, self.gain = list(state["curvature"]), list(state["gain"])
        self.first, self.second, self.count = state["first"], state["second"], int(state["count"])


class Decoupled:
    """x′ ≈ argmin γ L(x) + ‖x − x_θ‖² / 2σ², a few L-BFGS steps from x_θ; no backpropagation through the network.

    γ is the guidance weight times g(λ): with the shifted sigmoid the trust in the data is annealed inside the proximal step, since
    σ → 0 would otherwise leave depth to the likelihood's ill-determined directions.
    """

    through_network = False

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __call__(self, term: DataTerm, x: Tensor, pull: Callable[[Tensor], Tensor] | None, log_snr: float, factor: float,
                 batch: Any, inner: int = 3) -> Guided:
        """Guide x_θ (K, D, H, W) at level λ with `inner` steps."""
        variance = 1 / (1 + math.exp(log_snr))
        moved, misfits = x.clone(), []
        for k, start in enumerate(x):
            seen: list[float] = []
            free = start.clone()
            optimizer = torch.optim.LBFGS([free], lr=1, max_iter=inner, max_eval=2 * inner, history_size=inner + 1,
                                          line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0)

            def closure(free: Tensor = free, start: Tensor = start, seen: list[float] = seen) -> float:
                loss, gradient, misfit = term(free, batch)
                away = (free - start).to(gradient)
                free.grad = (factor * gradient + away / variance).to(free)
                seen.append(misfit)
                return factor * loss + float(away.square().sum()) / (2 * variance)

            if factor > 0:
                optimizer.step(closure)  # type: ignore[arg-type]
            else:
                seen.append(term.value(start, batch)[1])
            moved[k] = free.detach()
            misfits.append(seen[0])
        shift = float((moved - x).square().mean().sqrt())
        return Guided(moved, sum(misfits) / len(misfits), shift, factor * variance)

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
