"""Multislice forward model and its adjoint, both written out (no autograd graph).

Strong phase approximation: slice s has the transmission t_s = exp(i x_s) with the real phase x in
rad (paper, section 2). A wave ψ passes slice s and the gap behind it as ψ_{s+1} = F⁻¹ H_s F (t_s
ψ_s); after the last slice it goes straight to the detector, Ψ = F(t_S ψ_S), with the unitary
transform (``norm="ortho"``).

With a band limit, t_s and H_s are limited in Fourier space, see :mod:`.propagation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .gaps import Gaps, check_thickness, check_tilt
from .incidence import ramps
from .propagation import PropagatorKind, band_mask
from .scan import Windows


class Multislice:
    """Geometry and operators of one multislice model; waves of any batch go through it.

    Parameters
    ----------
    windows : Windows
        Where each position looks on the canvas.
    pixel_size : (dy, dx)
        Å.
    slice_thickness : float or sequence of D floats
        Å. The last entry is never used: there is no propagation after the last slice.
    wavelength : float
        Å.
    slices : int
        D.
    propagator_kind : 'fresnel' or 'exact'
    band_limit : float or None
        None for off, 2/3 for abTEM's.
    device, dtype
        Where and how (complex64 or complex128) to compute.
    """

    def __init__(
        self,
        windows: Windows,
        pixel_size: tuple[float, float],
        slice_thickness: float | Sequence[float],
        wavelength: float,
        slices: int,
        *,
        propagator_kind: PropagatorKind = "fresnel",
        band_limit: float | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        self.windows, self.slices, self.band_limit = windows, slices, band_limit
        self.pixel_size = pixel_size
        self.thickness = check_thickness(slice_thickness, slices)
        self.device, self.dtype = torch.device(device), dtype
        self.real_dtype = torch.float32 if dtype == torch.complex64 else torch.float64
        shape = windows.window
        window_mask = None if band_limit is None else band_mask(shape, pixel_size, band_limit)
        # beyond the limit no wave arrives; on the taper the model is not what a simulation had
        # either
        self.reach = None if window_mask is None else window_mask >= 1
        self.canvas_mask = (
            None
            if band_limit is None
            else torch.from_numpy(band_mask(windows.canvas, pixel_size, band_limit)).to(
                device, self.real_dtype
            )
        )
        self._window_mask = window_mask
        # the propagators are D − 1 of (Ky, Kx)
        self.gaps = Gaps(shape, pixel_size, wavelength, propagator_kind, tuple(self.thickness[:-1]))
        self.propagators = self.gaps.propagators(
            self._window_mask, self.device, self.dtype
        )  # D − 1 of (Ky, Kx)
        # flat canvas indices of a window in the corner; the padded canvas stays the same for all
        # positions
        grid = np.arange(shape[0])[:, None] * windows.padded[1] + np.arange(shape[1])
        self._grid = torch.from_numpy(grid).to(self.device)

    # ---- gaps ------------------------------------------------------------------------------------
    def set_gaps(
        self, thickness: float | Sequence[float] | None = None, tilt: Sequence[float] | None = None
    ) -> None:
        """Replace thickness and tilt; what is None stays.

        Parameters
        ----------
        thickness : float or sequence of D − 1 or D floats, optional
            Å: of all slices, of each gap, or of each slice (the last is never used).
        tilt : (y, x), optional
            Of the beam, mrad; see :mod:`.propagation`.

        Raises
        ------
        ValueError
            If a thickness is not positive, there is another number of them, or the tilt is too
            steep or has no gap to act on.
        """
        each = self.thickness
        if thickness is not None:
            if np.shape(thickness) == (self.slices - 1,):
                thickness = [*np.ravel(thickness), self.thickness[-1]]
            each = check_thickness(thickness, self.slices)
        angle = self.gaps.tilt if tilt is None else check_tilt(tilt, self.slices)
        self.thickness = each
        self.gaps = replace(self.gaps, thickness=tuple(each[:-1]), tilt=angle)
        self.propagators = self.gaps.propagators(self._window_mask, self.device, self.dtype)

    # ---- canvas ----------------------------------------------------------------------------------
    def limit(self, field: Tensor) -> Tensor:
        """Band limit on the canvas, (..., H, W) complex; its own adjoint. The identity when off."""
        if self.canvas_mask is None:
            return field
        return torch.fft.ifft2(torch.fft.fft2(field) * self.canvas_mask)

    def transmission(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """exp(i x): unlimited on the canvas (D, H, W), and limited and padded (D, Hp, Wp)."""
        free = torch.polar(torch.ones_like(volume), volume)
        return free, self.windows.pad(self.limit(free)).contiguous()

    def volume_gradient(self, free: Tensor, accumulated: Tensor) -> Tensor:
        """∂L/∂x (D, H, W) from G = Σ_p conj(ψ_p) ∂L/∂(t ψ_p)*, (D, Hp, Wp) complex, or from its
        Im(conj(t) G)."""
        if not accumulated.is_complex():
            return 2 * self.windows.fold(accumulated)
        g = self.limit(self.windows.fold(accumulated))
        return 2 * (free.real * g.imag - free.imag * g.real)  # 2 Im(conj(t) G)

    # ---- waves -----------------------------------------------------------------------------------
    def indices(self, corner: NDArray[np.int64]) -> Tensor:
        """Flat canvas indices of the windows, (B, Ky, Kx), from (B, 2) corners."""
        start = corner[:, 0] * self.windows.padded[1] + corner[:, 1]
        return torch.from_numpy(start).to(self.device)[:, None, None] + self._grid

    def incident(self, spectrum: Tensor, fraction: NDArray[np.float64]) -> Tensor:
        """Shifted probes (B, M, Ky, Kx) from the probe's spectrum (M, Ky, Kx) and pixel shifts (B,
        2)."""
        ramp = ramps(fraction, self.windows.window, self.device, self.dtype)
        return torch.fft.ifft2(spectrum * ramp[:, None])

    def forward(self, canvas: Tensor, index: Tensor, wave: Tensor) -> tuple[list[Tensor], Tensor]:
        """Waves before every slice and at the detector.

        Parameters
        ----------
        canvas : Tensor
            Padded transmission (D, Hp, Wp).
        index : Tensor
            (B, Ky, Kx), see :meth:`indices`.
        wave : Tensor
            Incident (B, M, Ky, Kx).

        Returns
        -------
        before : list of D tensors (B, M, Ky, Kx)
        detector : Tensor
            Ψ (B, M, Ky, Kx), DC in the corner.
        """
        flat = canvas.view(self.slices, -1)
        before = [wave]
        for s in range(self.slices):
            wave = wave * flat[s][index][:, None]
            if s < self.slices - 1:
                wave = torch.fft.fft2(wave).mul_(self.propagators[s])
                wave = torch.fft.ifft2(wave)
                before.append(wave)
        return before, torch.fft.fft2(wave, norm="ortho")

    def backward(
        self,
        canvas: Tensor,
        index: Tensor,
        before: list[Tensor],
        residual: Tensor,
        accumulated: Tensor,
        gap_sums: Tensor | None = None,
    ) -> Tensor:
        """Adjoint of :meth:`forward`: adds into `accumulated`, returns ∂L/∂ψ₀* (B, M, Ky, Kx).

        Parameters
        ----------
        residual : Tensor
            ∂L/∂Ψ*, (B, M, Ky, Kx).
        accumulated : Tensor
            (D, Hp, Wp) complex; receives Σ_p conj(ψ) χ per slice.
        gap_sums : Tensor, optional
            (D − 1, Ky, Kx) real; receives Σ Im(conj(χ̂) ψ̂) behind each gap, see :mod:`.gaps`. One
            transform more for each gap.
        """
        flat = canvas.view(self.slices, -1)
        out = torch.view_as_real(accumulated).view(self.slices, -1, 2)
        chi = torch.fft.ifft2(residual, norm="ortho")
        for s in range(self.slices - 1, -1, -1):
            part = (before[s].conj() * chi).sum(dim=1)  # over modes -> (B, Ky, Kx)
            out[s].index_add_(0, index.reshape(-1), torch.view_as_real(part).reshape(-1, 2))
            chi = chi * flat[s][index].conj()[:, None]
            if s > 0:
                chi = torch.fft.fft2(chi)
                if gap_sums is not None:
                    overlap = torch.fft.fft2(before[s]).mul_(chi.conj()).imag
                    gap_sums[s - 1] += overlap.sum(dim=(0, 1))
                chi = chi.mul_(self.propagators[s - 1].conj())
                chi = torch.fft.ifft2(chi)
        return chi
