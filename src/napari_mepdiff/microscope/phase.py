"""Aberration phase of a lens against angle, for a curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..physics.optics import Optics, aberration_phase

ANGLES, AZIMUTHS = 60, 72


@dataclass(frozen=True)
class PhaseCurve:
    """χ from the axis to the rim of the aperture.

    Attributes
    ----------
    angle : ndarray
        mrad.
    mean, low, high : ndarray
        χ in rad: over all azimuths, and the smallest and largest of them. What lies between is
        astigmatism, coma and the like.
    """

    angle: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def phase_curve(optics: Optics) -> PhaseCurve:
    """The curve of a lens, within its semi-angle."""
    angle = np.linspace(0.0, optics.semi_angle, ANGLES)
    azimuth = np.arange(AZIMUTHS) * 2 * np.pi / AZIMUTHS
    k = torch.from_numpy(angle[:, None] * 1e-3 / optics.wavelength)
    ky, kx = k * torch.from_numpy(np.sin(azimuth)), k * torch.from_numpy(np.cos(azimuth))
    if any(optics.cartesian.values()):
        chi = aberration_phase(optics, ky, kx).numpy()
    else:
        chi = np.zeros((ANGLES, AZIMUTHS))
    return PhaseCurve(angle, chi.mean(axis=1), chi.min(axis=1), chi.max(axis=1))
