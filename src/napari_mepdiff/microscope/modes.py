"""Modes of a refined probe as pictures, on the specimen and in the aperture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..physics.optics import wavelength
from .state import MicroscopeState

_WHOLE, _MARGIN = 0.99, 1.3  # share of the light that is shown, and how much more around it


@dataclass(frozen=True)
class ModePictures:
    """One mode of a probe.

    Attributes
    ----------
    number, count : int
        Which, and of how many; the first is 0.
    share : float
        Of the electrons that it carries.
    real : ndarray
        Intensity on the specimen, from 0 to 1; around the probe's middle.
    pixel : (dy, dx)
        Å.
    reciprocal : ndarray
        Complex amplitude in the aperture, its modulus from 0 to 1; around the axis.
    angle : (dy, dx)
        mrad.
    """

    number: int
    count: int
    share: float
    real: NDArray[np.float64]
    pixel: tuple[float, float]
    reciprocal: NDArray[np.complex128]
    angle: tuple[float, float]


def mode_pictures(state: MicroscopeState, number: int = 0) -> ModePictures:
    """Pictures of a mode; of the last where there are not so many."""
    number = min(max(0, number), len(state.probe) - 1)
    mode = state.probe[number].astype(np.complex128)
    real = np.abs(mode) ** 2
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(mode)))
    power = np.abs(spectrum) ** 2
    per_pixel = 1e3 * wavelength(state.energy)
    (ky, kx), (dy, dx) = mode.shape, state.pixel_size
    return ModePictures(
        number,
        len(state.probe),
        float(real.sum() / state.electrons),
        _scaled(_around(real, real)),
        state.pixel_size,
        _scaled(_around(spectrum, power)),
        (per_pixel / (ky * dy), per_pixel / (kx * dx)),
    )


def _scaled(image: NDArray[Any]) -> NDArray[Any]:
    top = np.abs(image).max()
    return image / top if top > 0 else image


def _around(image: NDArray[Any], light: NDArray[np.float64]) -> NDArray[Any]:
    """The middle of an image, as far out as nearly all of the light reaches."""
    ny, nx = image.shape
    y, x = np.ogrid[:ny, :nx]
    out = np.maximum(np.abs(y - ny // 2), np.abs(x - nx // 2))
    within = np.cumsum(np.bincount(out.ravel(), light.ravel()))
    reach = int(np.searchsorted(within, _WHOLE * within[-1]))
    reach = min(round(_MARGIN * reach) + 1, (min(ny, nx) - 1) // 2)
    return image[ny // 2 - reach : ny // 2 + reach + 1, nx // 2 - reach : nx // 2 + reach + 1]
