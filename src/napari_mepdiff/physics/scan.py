"""Probe positions, and the windows that they cut out of the canvas.

Positions are (y, x) in Å on the canvas whose voxel (i, j) is centred on (i·dy, j·dx). A window of K
pixels around a position has its top-left corner at ``round(position / pixel) − K // 2``; the
fraction that is left shifts the probe, never the object.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Boundary = Literal["periodic", "extended"]

_HALF = 0.5 + 1e-7  # round half up, the same wherever the canvas begins


class Raster(BaseModel):
    """A raster scan: how the microscope says it moved the probe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, int] = Field((26, 26), title="Scan shape", description="slow (y), fast (x)")
    step: tuple[float, float] = Field((0.512, 0.512), title="Scan step", description="Å, (y, x)")
    rotation: float = Field(0.0, title="Scan rotation", description="degrees, from +x towards +y")
    flip_y: bool = Field(False, title="Flip slow axis")
    flip_x: bool = Field(False, title="Flip fast axis")
    transpose: bool = Field(False, title="Swap the scan axes")
    affine: tuple[float, float, float, float] = Field(
        (1.0, 0.0, 0.0, 1.0),
        title="Affine",
        description="yy, yx, xy, xx; applied after the rotation",
    )
    origin: tuple[float, float] = Field(
        (0.0, 0.0), title="Origin", description="Å, shift of every position"
    )

    def positions(self) -> NDArray[np.float64]:
        """Positions in Å, (N, 2) as (y, x), slow axis first.

        Rotation, flips and affine turn about the centre of the scan; without them position (0, 0)
        is `origin`.

        Raises
        ------
        ValueError
            If the scan is empty or the step is not positive.
        """
        ny, nx = self.shape
        if ny < 1 or nx < 1 or min(self.step) <= 0:
            raise ValueError(
                f"a scan needs at least one position and a positive step, "
                f"got {self.shape}, {self.step}"
            )
        y, x = np.meshgrid(
            np.arange(ny) * self.step[0], np.arange(nx) * self.step[1], indexing="ij"
        )
        pos = np.stack([y.ravel(), x.ravel()], axis=1)
        centre = (np.array([ny, nx]) - 1) * np.array(self.step) / 2
        rel = pos - centre
        if self.transpose:
            rel = rel[:, ::-1]
        rel = rel * np.array([-1.0 if self.flip_y else 1.0, -1.0 if self.flip_x else 1.0])
        c, s = math.cos(math.radians(self.rotation)), math.sin(math.radians(self.rotation))
        turn = np.array([[c, s], [-s, c]])  # acts on (y, x): x' = c x − s y, y' = s x + c y
        yy, yx, xy, xx = self.affine
        rel = rel @ turn.T @ np.array([[yy, yx], [xy, xx]]).T
        middle = centre[::-1] if self.transpose else centre
        return rel + middle + np.array(self.origin)


def canvas_shape(
    positions: NDArray[np.float64],
    pixel_size: tuple[float, float],
    window: tuple[int, int],
    margin: int = 1,
) -> tuple[tuple[int, int], NDArray[np.float64]]:
    """Smallest extended canvas that holds every window, and the positions shifted onto it.

    Returns
    -------
    shape : (H, W)
        Canvas in pixels: scan extent + window + 2 × `margin`.
    positions : (N, 2)
        Å, moved so that every window lies inside.
    """
    pix = positions / np.array(pixel_size)
    low = np.floor(pix + _HALF).min(axis=0) - np.array(window) // 2 - margin
    high = np.floor(pix + _HALF).max(axis=0) - np.array(window) // 2 + np.array(window) + margin
    height, width = (int(v) for v in high - low)
    return (height, width), positions - low * np.array(pixel_size)


class Windows:
    """Integer corners and sub-pixel remainders of positions on a canvas.

    Parameters
    ----------
    positions : array
        (N, 2), Å, (y, x).
    canvas : (H, W)
        Pixels of the volume.
    window : (Ky, Kx)
        Pixels of the probe.
    pixel_size : (dy, dx)
        Å.
    boundary : 'periodic' or 'extended'
        Periodic: the canvas repeats (a window larger than the canvas sees it tiled). Extended:
        every window must lie on the canvas.

    Attributes
    ----------
    corner : ndarray
        (N, 2) int64 on the padded canvas.
    fraction : ndarray
        (N, 2) float64 in [−½, ½] pixels.
    padded : (Hp, Wp)
        The canvas as windows see it: H + Ky − 1 rows when periodic.

    Raises
    ------
    ValueError
        If positions are not finite or, on an extended canvas, a window sticks out.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        canvas: tuple[int, int],
        window: tuple[int, int],
        pixel_size: tuple[float, float],
        boundary: Boundary,
    ) -> None:
        pos = np.asarray(positions, dtype=np.float64)
        if pos.ndim != 2 or pos.shape[1] != 2:
            raise ValueError(f"positions must be (N, 2) as (y, x), got {pos.shape}")
        if not np.isfinite(pos).all():
            raise ValueError("positions contain NaN or infinite values")
        self.canvas, self.window, self.boundary = canvas, window, boundary
        pix = pos / np.array(pixel_size, dtype=np.float64)
        whole = np.floor(pix + _HALF)
        self.fraction: NDArray[np.float64] = pix - whole
        corner = whole.astype(np.int64) - np.array([window[0] // 2, window[1] // 2])
        self.padded = canvas
        if boundary == "periodic":
            corner = np.remainder(corner, np.array(canvas))
            self.padded = (canvas[0] + window[0] - 1, canvas[1] + window[1] - 1)
        else:
            low = corner.min(axis=0)
            over = (corner + np.array(window)).max(axis=0) - np.array(canvas)
            if (low < 0).any() or (over > 0).any():
                raise ValueError(
                    f"windows of {window} pixels stick out of the extended canvas {canvas}: by "
                    f"{max(0, -int(low.min()))} px before it and "
                    f"{max(0, int(over.max()))} px after it; "
                    "use canvas_shape() to size the canvas, or the periodic boundary"
                )
        self.corner: NDArray[np.int64] = corner

    def pad(self, canvas: Tensor) -> Tensor:
        """(..., H, W) to (..., Hp, Wp), wrapping when periodic."""
        if self.padded == self.canvas:
            return canvas
        rows = torch.arange(self.padded[0], device=canvas.device) % self.canvas[0]
        cols = torch.arange(self.padded[1], device=canvas.device) % self.canvas[1]
        return canvas.index_select(-2, rows).index_select(-1, cols)

    def fold(self, padded: Tensor) -> Tensor:
        """Adjoint of :meth:`pad`: (..., Hp, Wp) to (..., H, W), adding what wraps."""
        if self.padded == self.canvas:
            return padded
        height, width = self.canvas
        rows = torch.arange(self.padded[0], device=padded.device) % height
        cols = torch.arange(self.padded[1], device=padded.device) % width
        out = padded.new_zeros((*padded.shape[:-2], height, padded.shape[-1])).index_add_(
            -2, rows, padded
        )
        return out.new_zeros((*padded.shape[:-2], height, width)).index_add_(-1, cols, out)
