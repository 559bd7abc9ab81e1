"""EMPAD raw files: float32 frames without a header."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..dataset import FourDSTEM
from .common import Options, ReadError, arrange

EMPAD_SHAPE = (130, 128)  # rows 128 and 129 carry the frame's metadata


def read(path: Path, options: Options) -> FourDSTEM:
    """EMPAD raw: float32 frames of 130 × 128, two rows of metadata each.

    The name tells the scan's shape (scan_x128_y128.raw).
    """
    size, frame = path.stat().st_size, EMPAD_SHAPE[0] * EMPAD_SHAPE[1] * 4
    if size == 0 or size % frame:
        raise ReadError(
            f"{path.name} is {size} bytes, no whole number of EMPAD frames ({frame} bytes): cut "
            "short or not EMPAD"
        )
    count, scan = size // frame, options.scan_shape
    if scan is None:
        name = re.search(r"x(\d+)_y(\d+)", path.name)
        if name is None:
            raise ReadError(
                f"{path.name} holds {count} frames: say how the scan was shaped (scan_shape)"
            )
        scan = (int(name[2]), int(name[1]))
    if scan[0] * scan[1] != count:
        raise ReadError(
            f"{path.name} holds {count} frames, not {scan[0]} × {scan[1]}: cut short or mislabelled"
        )
    frames = np.memmap(path, np.float32, "r", shape=(*scan, *EMPAD_SHAPE))
    return FourDSTEM(arrange(frames[:, :, :128], Options(), path.name))
