"""What a detector makes of a pattern: blur, and counts that are not of the specimen.

The counts expected of a pattern I are C I Cᵀ + b + B: C spreads what arrives over neighbouring
pixels by a Gaussian, its point spread, b is a constant and B an image that the caller gives. The
kernel is the Gaussian at whole pixels, normalised, as SciPy's ``gaussian_filter`` and PtyRAD's
``detector_blur_std`` have it. It wraps around at the rim, so that no count is lost, and is applied
in real space: all its weights are positive, whereas the digits that a transform loses in the bright
disk would outweigh the dark field and could make it negative.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REACH = 6
"""Rms widths that the kernel reaches to; what is left out is 1e-8 of it."""


@dataclass(frozen=True, eq=False)
class Detector:
    """Blur and background of a detector; the default is a perfect one.

    Attributes
    ----------
    blur : float
        Rms of the Gaussian point spread along each axis, pixels.
    background : float
        Electrons per pixel and pattern.
    image : ndarray or None
        Further background (Ky, Kx), electrons per pixel and pattern, DC at the centre.

    Raises
    ------
    ValueError
        If a value is negative or not finite.
    """

    blur: float = 0.0
    background: float = 0.0
    image: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.blur) and self.blur >= 0):
            raise ValueError(f"the detector blur is in pixels rms, ≥ 0; got {self.blur}")
        if not (math.isfinite(self.background) and self.background >= 0):
            raise ValueError(
                f"the background is in electrons per pixel, ≥ 0; got {self.background}"
            )
        if self.image is not None and not (np.isfinite(self.image).all() and self.image.min() >= 0):
            raise ValueError("the background image holds negative or not finite values")

    def check(self, window: tuple[int, int]) -> None:
        """Whether it fits patterns of (Ky, Kx) pixels.

        Raises
        ------
        ValueError
            If the background image has another shape, or the blur is as wide as the pattern.
        """
        if self.image is not None and self.image.shape != window:
            raise ValueError(
                f"the background image is {self.image.shape}, the patterns are {window}"
            )
        if self.blur * 8 > min(window):
            raise ValueError(
                f"a detector blur of {self.blur:g} px rms leaves nothing of patterns of {window} px"
            )

    @functools.cached_property
    def corner(self) -> NDArray[np.float64] | None:
        """The background image with DC in the corner."""
        return None if self.image is None else np.ascontiguousarray(np.fft.ifftshift(self.image))

    @functools.cached_property
    def kernel(self) -> NDArray[np.float64]:
        """Weights along one axis (2r + 1), symmetric, sum 1; a single one without blur."""
        return point_spread(self.blur)[0]

    @functools.cached_property
    def kernel_slope(self) -> NDArray[np.float64]:
        """Derivative of :attr:`kernel` by the blur, per pixel; zero without blur."""
        return point_spread(self.blur)[1]

    # ---- in torch --------------------------------------------------------------------------------
    def detect(self, pattern: Tensor) -> Tensor:
        """Expected counts (B, Ky, Kx) of patterns; DC in the corner."""
        out = self.spread(pattern) + self.background
        if self.corner is not None:
            out = out + torch.from_numpy(self.corner).to(out)
        return out

    def spread(self, pattern: Tensor) -> Tensor:
        """Blur alone, of (…, Ky, Kx); its own adjoint."""
        if not self.blur:
            return pattern
        y, x = (self._matrix(self.kernel, n, pattern) for n in pattern.shape[-2:])
        return y @ pattern @ x

    def spread_slope(self, pattern: Tensor) -> Tensor:
        """Derivative of :meth:`spread` by the blur, per pixel, of (…, Ky, Kx)."""
        if not self.blur:
            return torch.zeros_like(pattern)
        y, x = (self._matrix(self.kernel, n, pattern) for n in pattern.shape[-2:])
        dy, dx = (self._matrix(self.kernel_slope, n, pattern) for n in pattern.shape[-2:])
        return dy @ pattern @ x + y @ pattern @ dx

    @staticmethod
    def _matrix(kernel: NDArray[np.float64], n: int, like: Tensor) -> Tensor:
        """The symmetric circulant (n, n) that a kernel is along an axis of n pixels."""
        row = np.zeros(n)
        reach = len(kernel) // 2
        np.add.at(row, np.arange(-reach, reach + 1) % n, kernel)
        places = np.arange(n)
        return torch.from_numpy(row[(places[:, None] - places) % n]).to(like)


def point_spread(blur: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gaussian at whole pixels, normalised, and its derivative by the width.

    Parameters
    ----------
    blur : float
        Rms, pixels.

    Returns
    -------
    weights, slope : ndarray
        (2r + 1), of pixels −r … r. Below 0.2 px next to nothing leaves the pixel, and the slope
        vanishes: a search for the blur begins at half a pixel.
    """
    if blur < 0.02:  # the next pixel gets less than the smallest number
        return np.ones(1), np.zeros(1)
    reach = math.ceil(REACH * blur)
    square = np.arange(-reach, reach + 1, dtype=np.float64) ** 2
    weights = np.exp(-square / (2 * blur**2))
    weights /= weights.sum()
    return weights, weights * (square - weights @ square) / blur**3
