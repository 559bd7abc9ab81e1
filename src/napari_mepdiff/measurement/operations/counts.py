"""What can be done to the counts: background, gain, pixels that do not measure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..calibration import DataError
from .derived import Data, changed


def subtract_background(self: Data, background: float | ArrayLike) -> Data:
    """Subtract a constant or a (Ky, Kx) dark pattern, electrons; what falls below 0 becomes 0."""
    dark = np.asarray(background, dtype=np.float32)
    if dark.ndim not in (0, 2) or (dark.ndim == 2 and dark.shape != self.detector_shape):
        raise DataError(
            f"a background is a number or a {self.detector_shape} pattern, got shape {dark.shape}"
        )
    if not np.isfinite(dark).all():
        raise DataError("the background contains NaN or infinite values")
    return changed(self, (self.data.astype(np.float32) - dark).clip(0), "subtract_background()")


def to_electrons(self: Data, gain: float) -> Data:
    """Divide detector units by `gain` (units per electron)."""
    if not gain > 0 or not math.isfinite(gain):
        raise DataError(f"the gain must be positive, got {gain}")
    return changed(self, self.data.astype(np.float32) / np.float32(gain), f"to_electrons({gain})")


def repair_hot_pixels(self: Data, hot: NDArray[np.bool_]) -> Data:
    """Replace marked detector pixels by the mean of their unmarked neighbours, and mask them.

    Raises
    ------
    DataError
        If the marks do not fit the detector or leave nothing.
    """
    if hot.shape != self.detector_shape or hot.all():
        raise DataError(
            f"hot pixels are marked in an image of {self.detector_shape}, and some pixels are left"
        )
    if not hot.any():
        return self
    data = self.data.map_blocks(repair_block, hot=hot, dtype=np.float32)
    mask = np.where(hot, 0, 1 if self.mask is None else self.mask).astype(np.float32)
    return changed(self, data, f"repair_hot_pixels({int(hot.sum())} pixels)", mask=mask)


def repair_block(block: NDArray[Any], hot: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Marked detector pixels as the mean of unmarked neighbours, growing until there are some."""
    out = block.astype(np.float32)
    ky, kx = hot.shape
    for y, x in zip(*np.nonzero(hot), strict=True):
        for reach in range(1, max(ky, kx)):
            rows = slice(max(0, y - reach), y + reach + 1)
            cols = slice(max(0, x - reach), x + reach + 1)
            good = ~hot[rows, cols]
            if good.any():
                out[:, :, y, x] = block[:, :, rows, cols][:, :, good].mean(axis=-1)
                break
    return out
