"""Free space between slices, and how far in Fourier space waves are followed.

A beam tilted by θ = (θy, θx) passes a gap of thickness t with the further factor exp(−2πi t (ky
tan θy + kx tan θx)), as abTEM has it (``_apply_tilt_to_fresnel_propagator_array`` in its
``multislice.py``): the wave moves by +t tan θ over the gap. For the pattern that equals a crystal
that leans the other way, an atom at depth z appearing at −z tan θ, while the bright disk stays in
the middle. The factor holds for small angles.

With a band limit, transmission and propagators are limited in Fourier space to a fraction of the
largest frequency (abTEM's and most multislice codes' choice: 2/3), tapered as in abTEM, so that
patterns simulated there are met within shot noise (the dark field is wrong without it).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PropagatorKind = Literal["fresnel", "exact"]

_TAPER = 0.01  # abTEM: width of the raised-cosine edge, of twice the largest frequency


def propagator(
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    thickness: float,
    wavelength: float,
    kind: PropagatorKind = "fresnel",
    tilt: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Free-space propagator in Fourier space, complex128 (Ky, Kx) on the CPU, DC in the corner.

    Parameters
    ----------
    thickness : float
        Distance in Å.
    wavelength : float
        Å.
    kind : 'fresnel' or 'exact'
        exp(−iπλΔz k²), or the exact angular spectrum exp(2πiΔz(√(λ⁻² − k²) − λ⁻¹)).
    tilt : (y, x)
        Of the beam, mrad.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    phase = propagation_phase(shape, pixel_size, thickness, wavelength, kind, tilt)
    return torch.from_numpy(np.exp(1j * phase))


def propagation_phase(
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    thickness: float,
    wavelength: float,
    kind: PropagatorKind = "fresnel",
    tilt: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Phase φ of :func:`propagator` in rad, (Ky, Kx), DC in the corner; linear in the thickness."""
    ky, kx = _frequencies(shape, pixel_size)
    k2 = ky**2 + kx**2
    if kind == "fresnel":
        phase = -math.pi * wavelength * thickness * k2
    elif kind == "exact":
        k0 = 1 / wavelength
        # k0² − k² − k0 loses digits; this form does not
        phase = -2 * math.pi * thickness * k2 / (k0 + np.sqrt((k0 * k0 - k2).clip(min=0)))
    else:
        raise ValueError(f"propagator is 'fresnel' or 'exact', got {kind!r}")
    if any(tilt):
        slope = (math.tan(angle / 1e3) for angle in tilt)
        phase = phase - 2 * math.pi * thickness * (ky * next(slope) + kx * next(slope))
    return phase


def phase_per_thickness(
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    wavelength: float,
    kind: PropagatorKind = "fresnel",
    tilt: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """∂φ/∂t of :func:`propagator` in rad/Å, (Ky, Kx), DC in the corner; the tilt included."""
    return propagation_phase(shape, pixel_size, 1.0, wavelength, kind, tilt)


def phase_per_tilt(
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    thickness: float,
    tilt: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """∂φ/∂θy, (Ky, 1), and ∂φ/∂θx, (1, Kx), in rad/mrad: −2π t k sec² θ · 1e-3."""
    ky, kx = _frequencies(shape, pixel_size)
    y, x = (-2e-3 * math.pi * thickness / math.cos(angle / 1e3) ** 2 for angle in tilt)
    return y * ky, (x * kx)[None, :]


def _frequencies(
    shape: tuple[int, int], pixel_size: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ky: NDArray[np.float64] = np.fft.fftfreq(shape[0], pixel_size[0]).astype(np.float64)
    kx: NDArray[np.float64] = np.fft.fftfreq(shape[1], pixel_size[1]).astype(np.float64)
    return ky[:, None], kx


def band_mask(
    shape: tuple[int, int], pixel_size: tuple[float, float], cutoff: float
) -> NDArray[np.float64]:
    """Antialias aperture as abTEM has it, (Ky, Kx), DC in the corner.

    Parameters
    ----------
    cutoff : float
        Fraction of the largest frequency ½/max(pixel_size), e.g. 2/3.
    """
    if not 0 < cutoff <= 1:
        raise ValueError(
            f"the band limit is a fraction of the largest frequency, 0 < f ≤ 1; got {cutoff}"
        )
    ky, kx = _frequencies(shape, pixel_size)
    k = np.sqrt(ky**2 + kx**2)
    edge = cutoff / max(pixel_size) / 2
    taper = _TAPER / max(pixel_size)
    mask = 0.5 * (1 + np.cos(math.pi * ((k - edge + taper) / taper).clip(0, 1)))
    return np.where(k > edge, 0.0, mask)
