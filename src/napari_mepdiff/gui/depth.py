"""The depth slider reaches every slice.

napari counts the positions of a slider as ``int(length / step) + 1``. The quotient of two floats
can fall short of the whole number that it means: 8 slices of 9.76 Å would end at the seventh. A
thickness larger by a few units in its last place mends that.
"""

from __future__ import annotations

from typing import Any

MOST = 64  # attempts; one in ten thicknesses needs any


def reach(viewer: Any, layer: Any) -> None:
    """See to it that the slider of the first axis of a volume layer (D, H, W) comes to its end."""
    axis = viewer.dims.ndim - 3
    thickness = layer.scale[0]
    for n in range(1, MOST):
        if axis < 0 or _reached(viewer, layer, axis):
            return
        layer.scale = (thickness * (1 + n * 2.0**-51), *layer.scale[1:])


def _reached(viewer: Any, layer: Any, axis: int) -> bool:
    start, _stop, step = viewer.dims.range[axis]
    last = start + (viewer.dims.nsteps[axis] - 1) * step
    deepest = layer.translate[0] + (layer.data.shape[0] - 1) * layer.scale[0]
    return bool(last > deepest - 0.5 * layer.scale[0])
