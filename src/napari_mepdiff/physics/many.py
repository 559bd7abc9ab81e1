"""Many volumes under one scan at once: what training on simulated measurements asks of the physics.

The same multislice as :mod:`.multislice`, of a periodic field as large as the window and positions
on whole pixels, so that all volumes and positions go through in one batch. Gradients by autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.devices import to_device
from .optics import wavelength
from .propagation import band_mask, propagator


@dataclass(frozen=True)
class PeriodicScan:
    """A probe at some positions over a periodic field of its own size.

    Attributes
    ----------
    waves : Tensor
        (P, H, W) complex, the probe at each position, of total intensity 1.
    propagator : Tensor
        (H, W) complex, from slice to slice, band-limited.
    limit : Tensor or None
        (H, W), band limit of transmissions.
    weight : Tensor or None
        (H, W), 1 for detector pixels in use, DC in the corner.
    """

    waves: Tensor
    propagator: Tensor
    limit: Tensor | None = None
    weight: Tensor | None = None

    @classmethod
    def over(
        cls,
        probe: Tensor,
        places: Sequence[tuple[int, int]],
        *,
        pixel_size: tuple[float, float],
        slice_thickness: float,
        energy: float,
        band_limit: float | None = None,
        device: torch.device | str = "cpu",
    ) -> PeriodicScan:
        """A scan of whole pixels.

        Parameters
        ----------
        probe : Tensor
            (H, W) complex, centred.
        places : sequence of (y, x)
            Positions, pixels.
        pixel_size : (dy, dx)
            Å.
        slice_thickness : float
            Å.
        energy : float
            kV.
        band_limit : float or None
            None for off, 2/3 for abTEM's.
        """
        height, width = (int(n) for n in probe.shape)
        h = propagator((height, width), pixel_size, slice_thickness, wavelength(energy))
        limit = weight = None
        if band_limit is not None:
            mask = torch.from_numpy(band_mask((height, width), pixel_size, band_limit))
            h = h * mask
            limit = to_device(mask.to(probe.real.dtype), device)
            weight = to_device((mask >= 1).to(probe.real.dtype), device)
        probe = to_device(probe, device)
        shift = to_device(
            torch.tensor(places) - torch.tensor([height // 2, width // 2]), probe.device
        )
        rows = (torch.arange(height, device=probe.device) - shift[:, :1]) % height
        columns = (torch.arange(width, device=probe.device) - shift[:, 1:]) % width
        waves = probe[rows[:, :, None], columns[:, None, :]]
        return cls(waves, to_device(h.to(probe.dtype), device), limit, weight)

    def patterns(self, volumes: Tensor) -> Tensor:
        """Intensities (B, P, H, W), DC in the corner, of total 1, from phases (B, D, H, W) in rad;
        differentiable."""
        through = torch.complex(volumes.cos(), volumes.sin())
        if self.limit is not None:
            through = torch.fft.ifft2(torch.fft.fft2(through) * self.limit)
        wave = self.waves[None]
        depth = volumes.shape[1]
        for s in range(depth):
            wave = wave * through[:, s, None]
            if s < depth - 1:
                wave = torch.fft.ifft2(torch.fft.fft2(wave) * self.propagator)
        wave = torch.fft.fft2(wave, norm="ortho")
        return wave.real.square() + wave.imag.square()

    def light(self, depth: int) -> Tensor:
        """Σ |ψ|² over the positions in every slice, (D, H, W), in vacuum."""
        wave, out = self.waves, []
        for _ in range(depth):
            out.append(wave.abs().square().sum(dim=0))
            wave = torch.fft.ifft2(torch.fft.fft2(wave) * self.propagator)
        return torch.stack(out)

    def gradient(self, volumes: Tensor, counts: Tensor, electrons: Tensor) -> Tensor:
        """∂L/∂x (B, D, H, W), per rad, of the amplitude misfit L = Σ (√I − √n)².

        Parameters
        ----------
        volumes : Tensor
            (B, D, H, W) rad.
        counts : Tensor
            (B, P, H, W), electrons, DC in the corner.
        electrons : Tensor
            (B,), per pattern.
        """
        x = volumes.detach().requires_grad_(True)
        with torch.enable_grad():
            per = electrons[:, None, None, None]
            # the same floor as misfit.default_background
            background = 6e-5 * per / (counts.shape[-2] * counts.shape[-1])
            each = ((self.patterns(x) * per + background).sqrt() - counts.sqrt()).square()
            if self.weight is not None:
                each = each * self.weight
            return torch.autograd.grad(each.sum(), x)[0]
