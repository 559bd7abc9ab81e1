"""Units of length, inverse length and angle, as files spell them."""

from __future__ import annotations

LENGTHS = {
    "Å": 1.0,
    "A": 1.0,
    "angstrom": 1.0,
    "Angstrom": 1.0,
    "nm": 10.0,
    "pm": 0.01,
    "µm": 1e4,
    "um": 1e4,
    "μm": 1e4,
    "m": 1e10,
}
"""In Å."""

INVERSE = {
    "1/Å": 1.0,
    "1/A": 1.0,
    "1 / Å": 1.0,
    "1 / A": 1.0,
    "Å^-1": 1.0,
    "A^-1": 1.0,
    "Å⁻¹": 1.0,
    "1/angstrom": 1.0,
    "$A^{-1}$": 1.0,
    "k_A^{-1}": 1.0,
    "1/nm": 0.1,
    "1 / nm": 0.1,
    "nm^-1": 0.1,
    "nm⁻¹": 0.1,
    "nm$^{-1}$": 0.1,
}
"""In Å⁻¹."""

ANGLES = {"mrad": 1.0, "rad": 1e3}
"""In mrad."""

NOTHING = ("", "pixels", "pixel", "px", "<undefined>", "None", "none")
"""No unit: the number means nothing."""
