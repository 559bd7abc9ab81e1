"""What can be done to the detector: which of its pixels are kept, and where they lie."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ..calibration import DataError
from .derived import Data, changed, noted, summable

_OTHER_PIXELS: dict[str, Any] = {
    "probe": None,
    "truth": None,
    "truth_atoms": None,
    "truth_instrument": None,
}


def crop_detector(self: Data, size: int) -> Data:
    """The central `size` × `size` detector pixels: coarser real-space pixels, same window.

    Raises
    ------
    DataError
        If the detector is smaller than that.
    """
    ky, kx = self.detector_shape
    if not 0 < size <= min(ky, kx):
        raise DataError(f"cannot crop a detector of {ky} × {kx} pixels to {size}")
    if size == ky == kx:
        return noted(self, f"crop_detector({size})")
    rows = slice(ky // 2 - size // 2, ky // 2 - size // 2 + size)
    cols = slice(kx // 2 - size // 2, kx // 2 - size // 2 + size)
    return changed(
        self,
        self.data[:, :, rows, cols],
        f"crop_detector({size})",
        mask=None if self.mask is None else self.mask[rows, cols],
        **_OTHER_PIXELS,
    )


def bin_detector(self: Data, factor: int) -> Data:
    """Sum of factor × factor detector pixels; a remainder at the edge is cut off."""
    ky, kx = self.detector_shape
    if not 1 <= factor <= min(ky, kx):
        raise DataError(f"cannot bin a detector of {ky} × {kx} pixels by {factor}")
    my, mx = ky // factor, kx // factor
    data = summable(self.data, factor)[:, :, : my * factor, : mx * factor]
    data = da.coarsen(np.sum, data, {2: factor, 3: factor})
    size = self.calibration.pixel_size
    calibration = self.calibration.model_copy(
        update={"pixel_size": None if size is None else size * factor}
    )
    mask = None
    if self.mask is not None:
        cut = self.mask[: my * factor, : mx * factor].reshape(my, factor, mx, factor)
        mask = cut.min(axis=(1, 3)).astype(np.float32)
    return changed(
        self, data, f"bin_detector({factor})", calibration=calibration, mask=mask, **_OTHER_PIXELS
    )


def flip_detector(self: Data, y: bool = False, x: bool = False) -> Data:
    """Mirror the patterns about DC: even sizes keep DC at K // 2."""
    data, mask = self.data, self.mask
    for axis, wanted in ((2, y), (3, x)):
        if wanted:
            n = self.shape[axis]
            order = (2 * (n // 2) - np.arange(n)) % n
            data = data.map_blocks(np.take, order, axis=axis, dtype=data.dtype)
            mask = None if mask is None else np.take(mask, order, axis=axis - 2)
    return changed(self, data, f"flip_detector(y={y}, x={x})", mask=mask, probe=None)


def transpose_detector(self: Data) -> Data:
    """Swap the detector axes."""
    return changed(
        self,
        self.data.transpose(0, 1, 3, 2),
        "transpose_detector()",
        probe=None,
        mask=None if self.mask is None else self.mask.T,
    )


def centred(self: Data, centre: tuple[float, float]) -> Data:
    """Shift by whole pixels so that `centre` (y, x) comes to K // 2; what enters is masked."""
    ky, kx = self.detector_shape
    dy, dx = round(ky // 2 - centre[0]), round(kx // 2 - centre[1])
    if (dy, dx) == (0, 0):
        return self
    if abs(dy) >= ky // 2 or abs(dx) >= kx // 2:
        raise DataError(f"the centre {centre} lies outside the middle of the detector {ky} × {kx}")
    gone = np.zeros((ky, kx), bool)
    gone[slice(0, dy) if dy > 0 else slice(ky + dy, ky) if dy < 0 else slice(0, 0), :] = True
    gone[:, slice(0, dx) if dx > 0 else slice(kx + dx, kx) if dx < 0 else slice(0, 0)] = True

    def shift(block: NDArray[Any]) -> NDArray[Any]:
        moved = np.roll(block, (dy, dx), axis=(2, 3))
        moved[..., gone] = 0
        return moved

    old = np.ones((ky, kx), np.float32) if self.mask is None else self.mask
    mask = np.where(gone, 0, np.roll(old, (dy, dx), (0, 1))).astype(np.float32)
    data = self.data.map_blocks(shift, dtype=self.data.dtype)
    return changed(self, data, f"centred({centre})", mask=mask, probe=None)
