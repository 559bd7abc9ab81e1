"""The probe at its positions, and the gradients by both, through ψ₀ = F⁻¹(ramp · F P)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .optics import shift_ramp


def ramps(
    fraction: NDArray[np.float64], window: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Fourier factors (B, Ky, Kx) that shift by fractions (B, 2) of a pixel."""
    height, width = window
    shift = torch.from_numpy(fraction)
    ramp_y = shift_ramp(shift[:, 0], height)[:, :, None]
    ramp_x = shift_ramp(shift[:, 1], width)[:, None, :]
    return (ramp_y * ramp_x).to(device=device, dtype=dtype)


def probe_gradients(
    waves: Tensor,
    spectrum: Tensor,
    fraction: NDArray[np.float64],
    pixel_size: tuple[float, float],
    *,
    probe: bool,
    positions: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to the probe and its positions, through ψ₀ = F⁻¹(ramp · F P).

    Parameters
    ----------
    waves : Tensor
        Spectra of ∂L/∂ψ₀*, (B, M, Ky, Kx).
    spectrum : Tensor
        F P, (M, Ky, Kx).
    fraction : ndarray
        (B, 2), pixels.
    pixel_size : (dy, dx)
        Å.
    probe, positions : bool
        Which are wanted.

    Returns
    -------
    probe : Tensor or None
        ∂L/∂Re P + i ∂L/∂Im P, (M, Ky, Kx).
    positions : Tensor or None
        ∂L/∂(y, x), (B, 2), per Å, float64 on the CPU.
    """
    height, width = spectrum.shape[-2:]
    fy = torch.fft.fftfreq(height, device=spectrum.device, dtype=spectrum.real.dtype)[:, None]
    fx = torch.fft.fftfreq(width, device=spectrum.device, dtype=spectrum.real.dtype)[None, :]
    total = torch.zeros_like(spectrum)
    slopes = []
    for i in range(0, len(waves), 32):
        ramp = ramps(fraction[i : i + 32], (height, width), spectrum.device, spectrum.dtype)
        back = waves[i : i + 32] * ramp.conj()[:, None]
        total += back.sum(dim=0)
        if positions:
            # dψ̂/dδ = −2πi f ψ̂, and 2 Re Σ conj(ĝ) (−2πi f) ψ̂ / size = (4π/size) Σ f
            # Im(conj(ĝ) ψ̂)
            overlap = (back.conj() * spectrum).imag.sum(dim=1)  # (B, Ky, Kx)
            slope = [(overlap * f).sum(dim=(1, 2), dtype=torch.float64) for f in (fy, fx)]
            slopes.append(4 * torch.pi / (height * width) * torch.stack(slope, dim=1))
    size = torch.tensor(pixel_size, dtype=torch.float64)
    return (
        2 * torch.fft.ifft2(total) if probe else None,
        (torch.cat(slopes).cpu() / size) if positions else None,
    )
