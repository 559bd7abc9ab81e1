"""Optics: electrons (:mod:`.electrons`), the condenser (:mod:`.lens`), and the probe that they make
(:mod:`.probe`), by one name."""

from __future__ import annotations

from .electrons import energy_of, interaction_parameter, wavelength
from .lens import Optics, aberration_phase, aperture, aperture_derivatives, frequencies
from .probe import add_modes, probe_from_array, probe_from_parameters, probe_from_vacuum, shift_ramp

__all__ = [
    "Optics",
    "aberration_phase",
    "add_modes",
    "aperture",
    "aperture_derivatives",
    "energy_of",
    "frequencies",
    "interaction_parameter",
    "probe_from_array",
    "probe_from_parameters",
    "probe_from_vacuum",
    "shift_ramp",
    "wavelength",
]
