"""Guidance by a Newton step through the network, held back by what the prior knows.

Along the paper's direction d = ∇_z L(x_θ(z)) (section 3) the prediction x′ = x_θ − g d is taken to
the minimum of

    L(x_θ − g d) + ‖g d‖² / 2σ²,   g = ∇L·d / (dᵀ∇²L d + ‖d‖² / σ²)

with L = −log p(y | x) in nats, σ² = sigmoid(−λ) the variance that a volume of unit variance has
left at this level. A weight of 1 thus scales with neither dose nor scan nor detector, and a low
dose guides weakly. The guidance weight and its schedule multiply g. The curvature dᵀ∇²L d comes
from one more evaluation of L along d, smoothed over the steps.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .data_term import VolumeMisfit
from .guide import Guided, Pullback, mean, rms, slopes

# longest step of weight 1, rms over σ: beyond it neither the quadratic form nor the network holds
REACH = 0.7
SMOOTHING = 0.7  # of the logarithm of the curvature, from step to step


class Newton:
    """x′ = x_θ − w g(λ) d with g of the capped Newton step along d = ∇_z L(x_θ(z)).

    Parameters
    ----------
    samples : int
        K.
    """

    through_network = True

    def __init__(self, samples: int) -> None:
        self.curvature: list[float] = [math.nan] * samples  # per unit length of d, nats
        self.gain: list[float] = [math.nan] * samples

    def __call__(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        pull: Pullback | None,
        log_snr: float,
        factor: float,
        inner: int = 1,
    ) -> Guided:
        """Guide x_θ (K, D, H, W) at level λ; `factor` is weight · g(λ)."""
        assert pull is not None
        losses, slope, misfits = slopes(likelihood, x)
        direction = pull(slope)
        variance = 1 / (1 + math.exp(log_snr))
        moved = x.clone()
        for k in range(len(x)):
            d = direction[k]
            length2 = float(d.square().sum())
            along = float((slope[k] * d).sum())
            if not (length2 > 0 and along > 0):  # not downhill: this step goes without
                continue
            self._measure(likelihood, x[k], d, losses[k], along, length2, variance, k)
            longest = REACH * math.sqrt(variance * d.numel() / length2)
            self.gain[k] = min(along / (length2 * (self.curvature[k] + 1 / variance)), longest)
            moved[k] = x[k] - factor * self.gain[k] * d
        known = [g for g in self.gain if math.isfinite(g)]
        return Guided(moved, mean(misfits), rms(moved - x), sum(known) / max(1, len(known)))

    def _measure(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        d: Tensor,
        loss: float,
        along: float,
        length2: float,
        variance: float,
        k: int,
    ) -> None:
        """dᵀ∇²L d / ‖d‖² by a trial step about as long as the last one."""
        old = self.curvature[k]
        if math.isnan(old):
            # a first trial that moves voxels by 0.05 of their standard deviation
            trial = 0.05 * math.sqrt(d.numel() / length2)
        else:
            trial = along / (length2 * (old + 1 / variance))
        there, _ = likelihood.value(x - trial * d)
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
        return {"curvature": list(self.curvature), "gain": list(self.gain)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.curvature, self.gain = list(state["curvature"]), list(state["gain"])
