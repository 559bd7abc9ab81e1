"""Probes: of an aperture and its aberrations, of a vacuum pattern, of an array; their modes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .lens import Optics, aberration_phase, aperture, frequencies


def probe_from_parameters(
    optics: Optics,
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    *,
    modes: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.complex64,
) -> Tensor:
    """Probe in real space, centred on pixel (Ky // 2, Kx // 2), total intensity 1.

    Parameters
    ----------
    optics : Optics
        Energy, aperture and aberrations.
    shape : (Ky, Kx)
        Window in pixels.
    pixel_size : (dy, dx)
        Å.
    modes : int
        Number of incoherent modes, see :func:`add_modes`.

    Returns
    -------
    Tensor
        Complex, (modes, Ky, Kx).

    Raises
    ------
    ValueError
        If the aperture does not fit inside the largest frequency that the pixel size allows.
    """
    ky, kx = frequencies(shape, pixel_size, device)
    limit = 0.5 / max(pixel_size)
    if optics.k_max >= limit:
        raise ValueError(
            f"an aperture of {optics.semi_angle:g} mrad ({optics.k_max:.3f} Å⁻¹) does not fit "
            f"in a detector "
            f"that ends at {limit:.3f} Å⁻¹: check semi-angle, energy and pixel size"
        )
    spectrum = torch.polar(aperture(optics, ky, kx), -aberration_phase(optics, ky, kx))
    return add_modes(_centre(spectrum), modes).to(dtype)


def probe_from_vacuum(
    pattern: Tensor,
    optics: Optics,
    pixel_size: tuple[float, float],
    *,
    modes: int = 1,
    threshold: float = 0.01,
    dtype: torch.dtype = torch.complex64,
) -> Tensor:
    """Probe whose aperture amplitude is the square root of a measured vacuum pattern.

    Parameters
    ----------
    pattern : Tensor
        (Ky, Kx), electrons, DC at (Ky // 2, Kx // 2).
    optics : Optics
        Supplies the aberration phase; its aperture is not used.
    pixel_size : (dy, dx)
        Real-space pixel size of the window in Å.
    threshold : float
        Pixels below this fraction of the brightest are set to zero (detector noise).

    Raises
    ------
    ValueError
        If the pattern has no counts, negative counts or NaN.
    """
    pattern = pattern.to(torch.float64)
    if not torch.isfinite(pattern).all() or (pattern < 0).any() or pattern.sum() <= 0:
        raise ValueError("a vacuum pattern needs finite, non-negative counts and a positive sum")
    height, width = pattern.shape
    ky, kx = frequencies((height, width), pixel_size, pattern.device)
    amplitude = torch.where(pattern > threshold * pattern.max(), pattern, 0).sqrt()
    amplitude = torch.fft.ifftshift(amplitude)
    spectrum = torch.polar(amplitude, -aberration_phase(optics, ky, kx))
    return add_modes(_centre(spectrum), modes).to(dtype)


def probe_from_array(probe: Tensor, *, modes: int | None = None) -> Tensor:
    """A given probe (Ky, Kx) or (modes, Ky, Kx), complex and centred, normalised to total intensity
    1.

    Raises
    ------
    ValueError
        If the array is not complex, not finite or empty of intensity.
    """
    if not probe.is_complex():
        raise ValueError("a probe is a complex array; got a real one (its phase is missing)")
    probe = probe if probe.ndim == 3 else probe[None]
    total = probe.abs().square().sum()
    if not torch.isfinite(total) or total <= 0:
        raise ValueError("the probe has NaN, infinite or zero intensity")
    probe = probe / total.sqrt()
    if modes is not None and modes > probe.shape[0]:
        return add_modes(probe[0], modes).to(probe.dtype)
    return probe if modes is None else probe[:modes] / probe[:modes].abs().square().sum().sqrt()


def add_modes(probe: Tensor, modes: int, share: float = 0.02) -> Tensor:
    """Orthonormal incoherent modes from one probe by Hermite-like factors (Thibault and Menzel
    2013).

    Mode m > 0 starts with `share` of the intensity; the sum is kept at 1.

    Parameters
    ----------
    probe : Tensor
        Complex (Ky, Kx).
    modes : int
        Number of modes, ≥ 1.
    """
    if modes < 1:
        raise ValueError(f"a probe has at least one mode, got {modes}")
    height, width = probe.shape[-2:]
    y = torch.arange(height, dtype=torch.float64, device=probe.device)[:, None] - height // 2
    x = torch.arange(width, dtype=torch.float64, device=probe.device)[None, :] - width // 2
    basis: list[Tensor] = []
    order = 0
    while len(basis) < modes:
        for i in range(order + 1):
            mode = probe * y**i * x ** (order - i)
            for other in basis:  # Gram-Schmidt
                mode = mode - (other.conj() * mode).sum() * other
            basis.append(mode / mode.abs().square().sum().sqrt())
            if len(basis) == modes:
                break
        order += 1
    power = torch.full((modes,), share, dtype=torch.float64, device=probe.device)
    power[0] = 1 - share * (modes - 1)
    if power[0] <= 0:
        raise ValueError(f"{modes} modes of {share:.0%} leave nothing for the first")
    return torch.stack(basis) * power.sqrt()[:, None, None]


def _centre(spectrum: Tensor) -> Tensor:
    """Corner-DC aperture function to a centred real-space probe of total intensity 1
    (complex128)."""
    probe = torch.fft.fftshift(torch.fft.ifft2(spectrum, norm="ortho"))
    return probe / probe.abs().square().sum().sqrt()


def shift_ramp(shift: Tensor, length: int) -> Tensor:
    """exp(−2πi·f·shift) for the signed integer frequencies f/length; shifts by `shift` pixels.

    Parameters
    ----------
    shift : Tensor
        (B,) pixels.

    Returns
    -------
    Tensor
        complex128, (B, length).
    """
    f = torch.fft.fftfreq(length, dtype=torch.float64, device=shift.device)
    return torch.polar(
        torch.ones((), dtype=torch.float64, device=shift.device),
        -2 * math.pi * shift.double()[:, None] * f,
    )
