"""An electron of a beam energy: its wavelength, and how strongly a potential turns its phase."""

from __future__ import annotations

import math

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
