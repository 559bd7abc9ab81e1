"""Aberrations of the probe-forming lens to fifth order, in the notation of Krivanek.

    χ(k, φ) = (2π/λ) · Σ_nm 1/(n+1) · (λk)^(n+1) · C_nm · cos(m(φ − φ_nm))

with the azimuth φ from +x towards +y (Krivanek, Dellby and Lupini 1999; Kirkland 2010, ch. 2).
Magnitude and azimuth are what people quote. What is fitted is the Cartesian form

    C_nm,a = C_nm cos(m φ_nm),  C_nm,b = C_nm sin(m φ_nm),

in which χ is linear and which is smooth at zero. A Cartesian coefficient is named ``C12a``,
``C12b``; a round one has the one name ``C10``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ABERRATIONS: dict[str, tuple[int, int]] = {
    "C10": (1, 0),
    "C12": (1, 2),
    "C21": (2, 1),
    "C23": (2, 3),
    "C30": (3, 0),
    "C32": (3, 2),
    "C34": (3, 4),
    "C41": (4, 1),
    "C43": (4, 3),
    "C45": (4, 5),
    "C50": (5, 0),
    "C52": (5, 2),
    "C54": (5, 4),
    "C56": (5, 6),
}
"""Order n and multiplicity m of every coefficient."""

CARTESIAN: tuple[str, ...] = tuple(
    name + part for name, (_, m) in ABERRATIONS.items() for part in (("a", "b") if m else ("",))
)
"""Names of all Cartesian coefficients: C10, C12a, C12b, …, C56b."""


def azimuth_of(name: str) -> str:
    """Name of the azimuth of a coefficient: ``phi12`` for ``C12``."""
    return "phi" + name[1:3]


def order(name: str) -> tuple[int, int, str]:
    """(n, m, part) of a Cartesian name; the part is '' for a round aberration, else 'a' or 'b'.

    Raises
    ------
    ValueError
        If there is no such coefficient.
    """
    if name not in CARTESIAN:
        raise ValueError(f"no aberration is called {name!r}; there are {', '.join(CARTESIAN)}")
    n, m = ABERRATIONS[name[:3]]
    return n, m, name[3:]


def to_cartesian(polar: Mapping[str, float]) -> dict[str, float]:
    """Cartesian coefficients, Å, of magnitudes ``Cnm`` (Å) and azimuths ``phinm`` (rad).

    All of them; what `polar` does not hold is zero.
    """
    out: dict[str, float] = {}
    for name, (_, m) in ABERRATIONS.items():
        size = float(polar.get(name, 0.0))
        if m == 0:
            out[name] = size
            continue
        angle = m * float(polar.get(azimuth_of(name), 0.0))
        out[name + "a"] = size * math.cos(angle)
        out[name + "b"] = size * math.sin(angle)
    return out


def to_polar(cartesian: Mapping[str, float]) -> dict[str, float]:
    """Magnitudes ``Cnm`` ≥ 0 (Å) and azimuths ``phinm`` in (−π/m, π/m] (rad), of Cartesian
    coefficients; a round coefficient keeps its sign."""
    out: dict[str, float] = {}
    for name, (_, m) in ABERRATIONS.items():
        if m == 0:
            out[name] = float(cartesian.get(name, 0.0))
            continue
        a = float(cartesian.get(name + "a", 0.0))
        b = float(cartesian.get(name + "b", 0.0))
        out[name] = math.hypot(a, b)
        # b + 0.0 turns −0.0 into 0.0, so that the azimuth is never −π/m
        out[azimuth_of(name)] = math.atan2(b + 0.0, a) / m
    return out


def aberration_basis(names: Sequence[str], wavelength: float, ky: Tensor, kx: Tensor) -> Tensor:
    """Derivatives of χ by Cartesian coefficients, rad per Å: χ = Σ_p C_p · basis_p.

    Parameters
    ----------
    names : sequence of str
        Cartesian names, see :data:`CARTESIAN`.
    wavelength : float
        Å.
    ky, kx : Tensor
        Spatial frequencies in Å⁻¹, broadcasting to (Ky, Kx).

    Returns
    -------
    Tensor
        (P, Ky, Kx), of the frequencies' type.

    Raises
    ------
    ValueError
        If a name is not a Cartesian coefficient.
    """
    u, v = torch.broadcast_tensors(wavelength * kx, wavelength * ky)
    square = u * u + v * v
    # powers of (u + iv) hold α^m cos mφ and α^m sin mφ without an arctangent
    real, imaginary = [torch.ones_like(u)], [torch.zeros_like(u)]
    for _ in range(max((order(name)[1] for name in names), default=0)):
        a, b = real[-1], imaginary[-1]
        real.append(a * u - b * v)
        imaginary.append(a * v + b * u)
    out = u.new_empty((len(names), *u.shape))
    for p, name in enumerate(names):
        n, m, part = order(name)
        angular = imaginary[m] if part == "b" else real[m]
        out[p] = square ** ((n + 1 - m) // 2) * angular
        out[p] *= 2 * math.pi / (wavelength * (n + 1))
    return out


def natural_unit(name: str, semi_angle: float, wavelength: float) -> float:
    """Å of a coefficient that make χ = 1 rad at the edge of the aperture.

    A fit that steps in these units has parameters of like size.

    Parameters
    ----------
    name : str
        ``C10``, ``C12``, ``C12a``, …
    semi_angle : float
        mrad.
    wavelength : float
        Å.
    """
    n, _ = ABERRATIONS[name] if name in ABERRATIONS else order(name)[:2]
    return wavelength * (n + 1) / (2 * math.pi * (semi_angle * 1e-3) ** (n + 1))
