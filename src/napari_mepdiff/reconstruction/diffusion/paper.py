"""The paper's guidance (Belardi et al. 2025, section 3, and table 4 of appendix E):

    x′_θ(z, λ) = x_θ(z, λ) − g(λ) ∇_z ‖f(x_θ(z, λ)) − y‖²,   g(λ) = 5000 sigmoid(4 − λ)^½

f and y are diffraction intensities (section 2: real-valued diffraction patterns, Ny × Nx × Ky × Kx;
appendix H takes their square root only to show them), and ‖·‖² sums over every scan position and
every detector pixel. The gradient is the one of PtyRAD (appendix C), so that patterns are in its
normalisation: divided by the largest value of the mean pattern. x is the volume as the network
has it, c = 25 times the phase in rad; f divides by c. The network is unconditional.

Two readings are ours, where the paper is silent: that the normalisation is PtyRAD's default, and
that its gradient is not divided by the number of pixels. f is the forward model of this package,
with its detector mask and band limit. Read so, the constant is far too strong for the
shipped prior: weights near 1e-5 explain the data, 1e-4 is far off at 30 steps and fits noise at
100, from 1e-3 on runs diverge (see docs/dps.md).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .data_term import VolumeMisfit
from .guide import Guided, Pullback, mean, rms, slopes

STRENGTH = 5000.0  # table 4; its sigmoid is the schedule 'shifted-sigmoid'


class Paper:
    """x′ = x_θ − 5000 w g(λ) ∇_z ‖f(x_θ(z)) − y‖², g the guidance schedule, w the weight."""

    through_network = True

    def __call__(
        self,
        likelihood: VolumeMisfit,
        x: Tensor,
        pull: Pullback | None,
        log_snr: float,
        factor: float,
        inner: int = 1,
    ) -> Guided:
        """Guide x_θ (K, D, H, W); `factor` is w · g(λ), the likelihood ‖f(x) − y‖²."""
        assert pull is not None
        _, slope, misfits = slopes(likelihood, x)
        moved = x - factor * STRENGTH * pull(slope)
        return Guided(moved, mean(misfits), rms(moved - x), STRENGTH)

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
