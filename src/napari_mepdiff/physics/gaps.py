"""The gaps between slices: their thickness and the tilt of the beam, and the gradients by both.

With h = exp(iφ) the propagator of a gap, χ̂ the spectrum of ∂L/∂ψ* behind it and ψ̂ that of the wave
ψ behind it, a change of the phase changes the loss by

    ∂L/∂φ(k) = −(2/N) Im(conj(χ̂) ψ̂)(k),

summed over positions and modes (N pixels, transforms without a factor; the band limit is in ψ̂). An
engine brings the sums of Im(conj(χ̂) ψ̂), one (Ky, Kx) for each gap; the rest is the chain rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .propagation import PropagatorKind, phase_per_thickness, phase_per_tilt, propagator

STEEPEST = 200.0
"""mrad; the tilted propagator is one for small angles."""


@dataclass(frozen=True)
class Gaps:
    """What waves pass between the slices of one model.

    Attributes
    ----------
    shape : (Ky, Kx)
        Of the window, pixels.
    pixel_size : (dy, dx)
        Å.
    wavelength : float
        Å.
    kind : 'fresnel' or 'exact'
    thickness : tuple of D − 1 floats
        Å, from slice to slice.
    tilt : (y, x)
        Of the beam, mrad; see :mod:`.propagation`.
    """

    shape: tuple[int, int]
    pixel_size: tuple[float, float]
    wavelength: float
    kind: PropagatorKind
    thickness: tuple[float, ...]
    tilt: tuple[float, float] = (0.0, 0.0)

    def propagators(
        self, limit: NDArray[np.float64] | None, device: torch.device, dtype: torch.dtype
    ) -> list[Tensor]:
        """One (Ky, Kx) for each gap, times a band limit, on a device; equal gaps share theirs."""
        made: dict[float, Tensor] = {}
        for t in self.thickness:
            if t not in made:
                h = propagator(
                    self.shape, self.pixel_size, t, self.wavelength, self.kind, self.tilt
                )
                h = h if limit is None else h * torch.from_numpy(limit)
                made[t] = h.to(device=device, dtype=dtype)
        return [made[t] for t in self.thickness]

    def gradients(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients from the sums that an engine brings.

        Parameters
        ----------
        sums : Tensor
            Σ Im(conj(χ̂) ψ̂) of each gap, (D − 1, Ky, Kx), DC in the corner.

        Returns
        -------
        thickness : Tensor
            ∂L/∂t of each gap, (D − 1,), per Å, float64 on the CPU.
        tilt : Tensor
            ∂L/∂(θy, θx), (2,), per mrad, float64 on the CPU.
        """
        of_phase = sums.to("cpu", torch.float64) * (-2 / (self.shape[0] * self.shape[1]))
        slope = phase_per_thickness(
            self.shape, self.pixel_size, self.wavelength, self.kind, self.tilt
        )
        thickness = (of_phase * torch.from_numpy(slope)).sum(dim=(1, 2))
        # the phase by the tilt is as thick as the gap: add the gaps up first
        each = torch.tensor(self.thickness, dtype=torch.float64)
        whole = (of_phase * each[:, None, None]).sum(dim=0)
        per_angle = phase_per_tilt(self.shape, self.pixel_size, 1.0, self.tilt)
        tilt = torch.stack([(whole * torch.from_numpy(part)).sum() for part in per_angle])
        return thickness, tilt


def check_thickness(thickness: float | Sequence[float], slices: int) -> list[float]:
    """Thickness of each of D slices in Å, from one number or D of them.

    Raises
    ------
    ValueError
        If there are more or fewer, or some are not positive.
    """
    each = [float(t) for t in np.ravel(thickness)]
    if np.ndim(thickness) == 0:
        each = each * slices
    if len(each) != slices:
        raise ValueError(f"{slices} slices need {slices} thicknesses, got {len(each)}")
    if not all(math.isfinite(t) and t > 0 for t in each):
        raise ValueError(f"slice thicknesses must be positive, in Å; got {each}")
    return each


def check_tilt(tilt: Sequence[float], slices: int) -> tuple[float, float]:
    """Tilt of the beam (y, x) in mrad.

    Raises
    ------
    ValueError
        If it is not two numbers, is too steep, or acts on nothing.
    """
    if len(tilt) != 2:
        raise ValueError(f"the beam tilt is (y, x) in mrad, got {tuple(tilt)}")
    y, x = (float(angle) for angle in tilt)
    if not (abs(y) <= STEEPEST and abs(x) <= STEEPEST):  # NaN as well
        raise ValueError(f"the beam tilt is in mrad, at most {STEEPEST:g}; got ({y:g}, {x:g})")
    if slices == 1 and (y or x):
        raise ValueError("a single slice has no gap behind it that a beam tilt could act on")
    return y, x
