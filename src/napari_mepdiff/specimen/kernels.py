"""The phase of one atom, as a spectrum on a pixel grid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..physics.optics import interaction_parameter
from .packing import MARGIN
from .scattering import projected_factor

__all__ = ["MARGIN", "atom_kernel"]


@lru_cache(maxsize=512)
def atom_kernel(
    number: int, shape: tuple[int, int], pixel_size: tuple[float, float], energy: float
) -> Tensor:
    """Phase of one atom in rad: σ_e f(k) / (dy dx), f of Lobato and Van Dyck (2014).

    abTEM divides by sin(r)/r with r² = (k_y dy)² + (k_x dx)² (no π), to make up for atoms that are
    shared among the pixels around them; so do we, since its volumes are the truth of the simulated
    data.

    Parameters
    ----------
    number : int
        Atomic number.
    shape : (h, w)
        Pixels.
    pixel_size : (dy, dx)
        Å.
    energy : float
        kV.

    Returns
    -------
    Tensor
        (h, w // 2 + 1), half spectrum, float32 on the CPU; shared between calls, not to be changed.
    """
    (height, width), (dy, dx) = shape, pixel_size
    ky = np.fft.fftfreq(height, dy)[:, None]
    kx = np.fft.rfftfreq(width, dx)[None]
    r = np.hypot(ky * dy, kx * dx)
    shared = np.sinc(r / np.pi)  # numpy's sinc has the π
    spectrum = projected_factor(number, ky**2 + kx**2) / shared
    return torch.from_numpy(
        (interaction_parameter(energy) / (dy * dx) * spectrum).astype(np.float32)
    )
