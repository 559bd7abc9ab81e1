"""What can be done to a scan: where its patterns lie, and which of them are kept."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ...physics.optics import Optics
from ..calibration import Calibration, DataError
from ..measured import Measured
from .derived import Data, changed, noted, summable


def calibrated(self: Data, **fields: Any) -> Data:
    """With calibration fields replaced (validated): ``calibrated(energy=200, rotation=3)``.

    Positions that the file holds are kept: a new rotation turns them by the difference to the old
    one, a new scan step stretches them along the scan's axes, both about their centre.

    Raises
    ------
    DataError
        If the file holds positions and a scan step is given that cannot be compared with theirs.
    """
    old = self.calibration
    new = Calibration.model_validate({**old.model_dump(), **fields})
    optics = self.optics
    if optics is not None:
        update = {k: fields[k] for k in ("energy", "semi_angle") if fields.get(k) is not None}
        optics = Optics.model_validate({**optics.model_dump(), **update})
    out = replace(self, calibration=new, optics=optics)
    if self.positions is None or (new.scan_step, new.rotation) == (old.scan_step, old.rotation):
        return out
    stretch = np.ones(2)
    if new.scan_step is not None and new.scan_step != old.scan_step:
        if old.scan_step is None:
            raise DataError(
                "the file holds a position for every pattern, and no scan step to compare a new "
                "one with: leave the scan step out, the positions are used as they are"
            )
        stretch = np.array(new.scan_step) / np.array(old.scan_step)
    back, turn = _turn(old.rotation).T, _turn(new.rotation)
    centre = self.positions.mean(axis=0)
    moved = (self.positions - centre) @ (turn @ np.diag(stretch) @ back).T + centre
    said = []
    if new.rotation != old.rotation:
        said.append(f"turned by {new.rotation - old.rotation:g}°")
    if not np.array_equal(stretch, np.ones(2)):
        said.append(f"stretched by {stretch[0]:.4g} (y) and {stretch[1]:.4g} (x)")
    return noted(
        replace(out, positions=moved), f"stored positions {' and '.join(said)} about their centre"
    )


def crop_scan(self: Data, y: slice = slice(None), x: slice = slice(None)) -> Data:
    """A part of the scan; positions stay where they are.

    The ground truth of an extended specimen belongs to the canvas of the whole scan and is dropped,
    unless all positions stay.

    Raises
    ------
    DataError
        If nothing is left.
    """
    ny, nx = self.scan_shape
    rows, cols = np.arange(ny)[y], np.arange(nx)[x]
    if not (rows.size and cols.size):
        raise DataError(f"nothing is left of a scan of {ny} × {nx} positions by cropping it so")
    if np.array_equal(rows, np.arange(ny)) and np.array_equal(cols, np.arange(nx)):
        return noted(self, f"crop_scan({y}, {x})")
    positions = None
    if self.positions is not None or self.calibration.scan_step is not None:
        positions = self.scan_positions().reshape(ny, nx, 2)[y, x].reshape(-1, 2)
    step = self.calibration.scan_step
    stride = (abs(y.step or 1), abs(x.step or 1))
    calibration = self.calibration.model_copy(
        update={"scan_step": None if step is None else (step[0] * stride[0], step[1] * stride[1])}
    )
    return changed(
        self,
        self.data[y, x],
        f"crop_scan({y}, {x})",
        calibration=calibration,
        positions=positions,
        **_without_canvas(self),
    )


def bin_scan(self: Data, factor: int) -> Data:
    """Sum of factor × factor neighbouring positions, placed at their middle."""
    ny, nx = self.scan_shape
    if not 1 <= factor <= min(ny, nx):
        raise DataError(f"cannot bin a scan of {ny} × {nx} positions by {factor}")
    my, mx = ny // factor, nx // factor
    data = summable(self.data, factor)[: my * factor, : mx * factor]
    data = da.coarsen(np.sum, data, {0: factor, 1: factor})
    step, positions = self.calibration.scan_step, None
    if self.positions is not None or step is not None:
        grid = self.scan_positions().reshape(ny, nx, 2)[: my * factor, : mx * factor]
        positions = grid.reshape(my, factor, mx, factor, 2).mean(axis=(1, 3)).reshape(-1, 2)
    new_step = None if step is None else (step[0] * factor, step[1] * factor)
    calibration = self.calibration.model_copy(update={"scan_step": new_step})
    return changed(
        self,
        data,
        f"bin_scan({factor})",
        calibration=calibration,
        positions=positions,
        **(_without_canvas(self) if factor > 1 else {}),
    )


def transpose_scan(self: Data) -> Data:
    """Swap the scan axes: what was taken for the slow axis is the fast one.

    The probe's places follow, whether they are a raster's or stored: they are mirrored on the
    diagonal of the scan's own frame. The ground truth no longer fits and is dropped.
    """
    ny, nx = self.scan_shape
    step, positions = self.calibration.scan_step, None
    if self.positions is not None:
        # p = R(θ)(u − middle) + middle for a raster: swap u and the middle, turn back by R(θ)
        turn = _turn(self.calibration.rotation)
        centre = self.positions.mean(axis=0)
        own = (self.positions - centre) @ turn  # rows times R: R⁻¹ acting on columns
        moved = own[:, ::-1] @ turn.T + centre[::-1]
        positions = moved.reshape(ny, nx, 2).transpose(1, 0, 2).reshape(-1, 2)
    return changed(
        self,
        self.data.transpose(1, 0, 2, 3),
        "transpose_scan()",
        calibration=self.calibration.model_copy(
            update={"scan_step": None if step is None else step[::-1]}
        ),
        positions=positions,
        canvas=None if self.canvas is None else self.canvas[::-1],
        truth=None,
        truth_atoms=None,
        truth_instrument=None,
    )


def _turn(degrees: float) -> NDArray[np.float64]:
    """Acts on columns (y, x): from +x towards +y, as a raster's rotation does."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s], [-s, c]])


def _without_canvas(self: Measured) -> dict[str, Any]:
    """An extended specimen's canvas and truth end where the windows of the scan end."""
    if self.boundary == "periodic":
        return {"truth_instrument": None}  # its positions are those of the whole scan
    return {"canvas": None, "truth": None, "truth_atoms": None, "truth_instrument": None}
