"""What of a probe a regular raster cannot tell from the specimen.

A probe times any pattern that repeats with the scan step, and a specimen divided by it, give the
same data: a refined probe then prints the raster on the volume (raster grid pathology: Thibault et
al., Ultramicroscopy 109, 338 (2009)). In the lens such a pattern is a ripple of the pupil with the
period step / (λ C10). So only ripples twice as long, or longer, are refined: with the optics'
phase taken out of its spectrum, what is refined of the probe stays within so many Å of the centre.
The aperture's rim is sharp, and is refined as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ...physics.illumination import Illumination
from ...physics.optics import Optics
from ..problem import Problem

REGULAR = 0.1  # spread of the distances of neighbours, over their median, of a raster
LEAST = 2.0  # λ/α: no less is left of a probe in focus
RIM = 3.0  # pixels within the semi-angle, and all beyond it


class GridWindow:
    """Takes out of a change of the probe what the raster leaves open.

    Parameters
    ----------
    optics : Optics
        Of the probe, at its plane.
    shape : (Ky, Kx)
        Of the window, pixels.
    pixel_size : (dy, dx)
        Å.
    radius : float
        Å, see :func:`radius_for`.
    """

    def __init__(
        self, optics: Optics, shape: tuple[int, int], pixel_size: tuple[float, float], radius: float
    ) -> None:
        probe = Illumination(optics, 0.0, 0.0, 1, shape, pixel_size).probe()[0]
        spectrum = torch.fft.fft2(probe)
        size = spectrum.abs()
        lit = size > 1e-3 * size.max()
        phase = torch.where(lit, spectrum / size.clamp(min=1e-30), torch.ones_like(spectrum))
        self.phase = phase.to(torch.complex64)
        y = torch.fft.fftfreq(shape[0], 1 / (shape[0] * pixel_size[0]))[:, None]
        x = torch.fft.fftfreq(shape[1], 1 / (shape[1] * pixel_size[1]))
        away = (y * y + x * x).sqrt() / radius
        ky = torch.fft.fftfreq(shape[0], pixel_size[0])[:, None]
        kx = torch.fft.fftfreq(shape[1], pixel_size[1])
        pixel = max(1 / (n * d) for n, d in zip(shape, pixel_size, strict=True))
        wide = RIM * pixel + 0.5e-3 * optics.soft_edge / optics.wavelength
        k = (ky * ky + kx * kx).sqrt()
        self.rim = ((k - optics.k_max + wide) / pixel + 0.5).clamp(0, 1).float()
        # one within the radius, falling to zero over a third of it
        self.inside = (0.5 + 0.5 * torch.cos(torch.pi * (3 * (away - 1)).clamp(0, 1))).float()

    def __call__(self, spectrum: Tensor) -> Tensor:
        """Of a spectrum (M, Ky, Kx), DC in the corner, what is refined."""
        phase, rim = self.phase.to(spectrum.device), self.rim.to(spectrum.device)
        within = spectrum * phase.conj() * (1 - rim)
        near = torch.fft.ifft2(within) * self.inside.to(spectrum.device)
        # symmetric, so that against a gradient it is always a way down
        return torch.fft.fft2(near) * phase * (1 - rim) + spectrum * rim.square()


def radius_for(optics: Optics, positions: Tensor) -> float | None:
    """Å within which a refocused probe is refined; None where positions are no raster.

    Parameters
    ----------
    positions : Tensor
        (N, 2), Å.
    """
    places = positions.cpu().numpy()
    if len(places) < 9:
        return None
    near = cKDTree(places).query(places, k=2)[0][:, 1]
    step = float(np.median(near))
    if not step > 0 or float(np.abs(near - step).mean()) > REGULAR * step:
        return None
    ripple = optics.wavelength * abs(optics.overfocus) / step
    return max(0.5 * ripple, LEAST * 1e3 * optics.wavelength / optics.semi_angle)


def grid_window(problem: Problem) -> GridWindow | None:
    """That of a problem; None where its optics are not known, or its positions are no raster."""
    optics = problem.told_here
    if optics is None:
        return None
    radius = radius_for(optics, torch.from_numpy(problem.positions))
    if radius is None:
        return None
    shape = (problem.probe.shape[1], problem.probe.shape[2])
    pixel = (problem.voxel_size[1], problem.voxel_size[2])
    return GridWindow(optics, shape, pixel, radius)
