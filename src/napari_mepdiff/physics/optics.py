"""Wavelength, interaction parameter, aperture and aberrations, and the probe they make.

Units: kV, mrad, Å, Å⁻¹. The aperture phase is exp(−iχ) with χ to fifth order, see
:mod:`~napari_mepdiff.physics.aberrations`. **Positive C10 is overfocus** here: the beam
crosses over above the specimen, as in abTEM's ``C10``; PtyRAD's positive ``defocus`` is the
opposite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .aberrations import CARTESIAN, aberration_basis, to_cartesian, to_polar
from .aperture import Edge, edge_amplitude, edge_derivatives

# CODATA 2018
_M0C2_KEV = 510.99895  # electron rest energy
_HC_KEV_A = 12.398419843  # Planck constant times speed of light


def wavelength(energy: float) -> float:
    """Relativistic electron wavelength in Å.

    Parameters
    ----------
    energy : float
        Beam energy in kV (keV), e.g. 300.

    Raises
    ------
    ValueError
        If the energy is not positive.
    """
    if not energy > 0:
        raise ValueError(f"beam energy must be positive, got {energy} kV")
    return _HC_KEV_A / math.sqrt(energy * (2 * _M0C2_KEV + energy))


def energy_of(wavelength: float) -> float:
    """Beam energy in kV of a relativistic electron wavelength in Å.

    Raises
    ------
    ValueError
        If the wavelength is not positive.
    """
    if not wavelength > 0:
        raise ValueError(f"a wavelength must be positive, got {wavelength} Å")
    return math.hypot(_M0C2_KEV, _HC_KEV_A / wavelength) - _M0C2_KEV


def interaction_parameter(energy: float) -> float:
    """σ_e in rad/(V·Å): a projected potential of 1 V·Å shifts the phase by σ_e (Kirkland 2010, eq.
    5.6).

    Parameters
    ----------
    energy : float
        Beam energy in kV.
    """
    lam = wavelength(energy)
    return 2 * math.pi / (lam * energy * 1e3) * (_M0C2_KEV + energy) / (2 * _M0C2_KEV + energy)


class Optics(BaseModel):
    """Electron-optical settings of the illumination. All lengths in Å, angles of aberrations in
    rad."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: float = Field(300.0, gt=0, le=3000, title="Beam energy", description="kV")
    semi_angle: float = Field(
        21.4, gt=0, le=200, title="Convergence semi-angle", description="mrad"
    )
    overfocus: float = Field(200.0, title="Overfocus C10", description="Å; positive is overfocus")
    C12: float = Field(0.0, title="Twofold astigmatism", description="Å")
    phi12: float = Field(0.0, title="Angle of C12", description="rad")
    C21: float = Field(0.0, title="Coma", description="Å")
    phi21: float = Field(0.0, title="Angle of C21", description="rad")
    C23: float = Field(0.0, title="Threefold astigmatism", description="Å")
    phi23: float = Field(0.0, title="Angle of C23", description="rad")
    C30: float = Field(5000.0, title="Spherical aberration", description="Å (500 nm = 5000 Å)")
    C32: float = Field(0.0, title="Third-order twofold astigmatism (star)", description="Å")
    phi32: float = Field(0.0, title="Angle of C32", description="rad")
    C34: float = Field(0.0, title="Fourfold astigmatism", description="Å")
    phi34: float = Field(0.0, title="Angle of C34", description="rad")
    C41: float = Field(0.0, title="Fourth-order coma", description="Å")
    phi41: float = Field(0.0, title="Angle of C41", description="rad")
    C43: float = Field(0.0, title="Three-lobe aberration", description="Å")
    phi43: float = Field(0.0, title="Angle of C43", description="rad")
    C45: float = Field(0.0, title="Fivefold astigmatism", description="Å")
    phi45: float = Field(0.0, title="Angle of C45", description="rad")
    C50: float = Field(0.0, title="Fifth-order spherical aberration", description="Å")
    C52: float = Field(0.0, title="Fifth-order twofold astigmatism", description="Å")
    phi52: float = Field(0.0, title="Angle of C52", description="rad")
    C54: float = Field(0.0, title="Four-lobe aberration", description="Å")
    phi54: float = Field(0.0, title="Angle of C54", description="rad")
    C56: float = Field(0.0, title="Sixfold astigmatism", description="Å")
    phi56: float = Field(0.0, title="Angle of C56", description="rad")
    soft_edge: float = Field(
        0.0,
        ge=0,
        title="Soft aperture edge",
        description="width over which the aperture falls off, mrad",
    )
    edge: Edge = Field(
        "cosine", title="Shape of the soft edge", description="raised cosine, or linear as in abTEM"
    )

    @property
    def wavelength(self) -> float:
        """Electron wavelength, Å."""
        return wavelength(self.energy)

    @property
    def k_max(self) -> float:
        """Aperture radius in Å⁻¹."""
        return self.semi_angle * 1e-3 / self.wavelength

    @property
    def cartesian(self) -> dict[str, float]:
        """All Cartesian aberration coefficients, Å: C10, C12a, C12b, …"""
        return to_cartesian({**self.model_dump(), "C10": self.overfocus})

    def with_cartesian(self, changes: Mapping[str, float]) -> Optics:
        """With Cartesian coefficients replaced (Å); the others stay.

        Raises
        ------
        ValueError
            If a name is not a Cartesian coefficient.
        """
        for name in changes:
            if name not in CARTESIAN:
                raise ValueError(f"no aberration is called {name!r}: take C10, C12a, C12b, …")
        polar = to_polar({**self.cartesian, **changes})
        polar["overfocus"] = polar.pop("C10")
        return Optics.model_validate({**self.model_dump(), **polar})


def frequencies(
    shape: tuple[int, int], pixel_size: tuple[float, float], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Spatial frequencies (ky, kx) in Å⁻¹, DC in the corner, float64, shapes (Ky, 1) and (1,
    Kx)."""
    ky = torch.fft.fftfreq(shape[0], pixel_size[0], dtype=torch.float64, device=device)[:, None]
    kx = torch.fft.fftfreq(shape[1], pixel_size[1], dtype=torch.float64, device=device)[None, :]
    return ky, kx


def aberration_phase(optics: Optics, ky: Tensor, kx: Tensor) -> Tensor:
    """χ in rad at the frequencies (ky, kx), Å⁻¹; the aperture function carries exp(−iχ).

    The azimuth φ is measured from +x towards +y.
    """
    held = {name: value for name, value in optics.cartesian.items() if value}
    names = list(held)
    basis = aberration_basis(names, optics.wavelength, ky, kx)
    coefficients = torch.tensor([held[n] for n in names], dtype=basis.dtype, device=basis.device)
    return torch.tensordot(coefficients, basis, dims=1)


def aperture(optics: Optics, ky: Tensor, kx: Tensor) -> Tensor:
    """Amplitude of the condenser aperture, 1 inside and 0 outside; its edge is `soft_edge` mrad
    wide.

    abTEM's ``soft=True`` on a square window is ``edge="linear"`` with a soft edge of one pixel of
    the detector, ``1e3 * wavelength / window`` mrad.
    """
    angle = optics.wavelength * torch.sqrt(ky**2 + kx**2) * 1e3  # mrad
    return edge_amplitude(angle, optics.semi_angle, optics.soft_edge, optics.edge)


def aperture_derivatives(optics: Optics, ky: Tensor, kx: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of :func:`aperture` by `semi_angle` and by `soft_edge`, per mrad.

    Raises
    ------
    ValueError
        If the edge is hard.
    """
    angle = optics.wavelength * torch.sqrt(ky**2 + kx**2) * 1e3
    return edge_derivatives(angle, optics.semi_angle, optics.soft_edge, optics.edge)


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
