"""Decoupled guidance: no backpropagation through the network (DiffPIR, Zhu et al. 2023; DAPS,
Zhang et al. 2024).

    x′ ≈ argmin γ L(x) + ‖x − x_θ‖² / 2σ²,   σ² = sigmoid(−λ)

by a few L-BFGS steps from x_θ. γ is the guidance weight times g(λ): with the shifted sigmoid the
trust in the data is annealed inside the proximal step, since σ → 0 would otherwise leave depth to
the likelihood's ill-determined directions.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..optimisers import LBFGS
from .data_term import VolumeMisfit
from .guide import Guided, Pullback, mean, rms


class Decoupled:
    """x′ by a few L-BFGS steps on data and distance from x_θ."""

    through_network = False

    def __call__(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        pull: Pullback | None,
        log_snr: float,
        factor: float,
        inner: int = 3,
    ) -> Guided:
        """Guide x_θ (K, D, H, W) at level λ with `inner` steps; `factor` is γ."""
        variance = 1 / (1 + math.exp(log_snr))
        moved, misfits = x.clone(), []
        for k, start in enumerate(x):
            found: list[float] = []
            free = start.clone()
            optimizer = LBFGS(
                [free],
                lr=1,
                max_iter=inner,
                max_eval=2 * inner,
                history_size=inner + 1,
                line_search_fn="strong_wolfe",
                tolerance_grad=0,
                tolerance_change=0,
            )

            def closure(
                free: Tensor = free, start: Tensor = start, found: list[float] = found
            ) -> float:
                loss, gradient, misfit = likelihood(free)
                away = (free - start).to(gradient)
                free.grad = (factor * gradient + away / variance).to(free)
                found.append(misfit)
                return factor * loss + float(away.square().sum()) / (2 * variance)

            if factor > 0:
                optimizer.step(closure)  # type: ignore[arg-type]
            else:
                found.append(likelihood.value(start)[1])
            moved[k] = free.detach()
            misfits.append(found[0])
        return Guided(moved, mean(misfits), rms(moved - x), factor * variance)

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
