"""A part of a problem: neighbouring positions in the middle of the field, and the canvas there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..frame import RefineInfo
from ..problem import Problem

MOST = 150  # positions
WORK = 150 * 128 * 128 * 8  # pixels × slices of all positions: what a machine does in a second


def patch_of(
    problem: Problem,
    volume: NDArray[np.float32],
    positions: NDArray[np.float64],
    found: RefineInfo | None,
    good: NDArray[np.float64],
    gain: float,
) -> tuple[Problem, NDArray[np.float32], RefineInfo | None]:
    """The problem, volume and microscope of a patch.

    Parameters
    ----------
    problem : Problem
    volume : ndarray
        (D, H, W), rad.
    positions : ndarray
        (N, 2), Å, where the probe is taken to have been.
    found : RefineInfo or None
    good : ndarray
        (Ky, Kx), weights of pixels that measure.
    gain : float
        Values of one electron.
    """
    ky, kx = problem.patterns.shape[1:]
    each = ky * kx * max(1, problem.shape[0] // problem.together)
    most = int(np.clip(WORK // each, 25, MOST))
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    order = np.argsort(np.square(positions - middle).sum(axis=1), kind="stable")
    index = np.sort(order[:most])
    shape, offset = problem.shape, np.zeros(2, np.int64)
    part = volume
    if problem.boundary == "extended":
        pixel = np.array(problem.voxel_size[1:])
        corner = np.floor(positions[index] / pixel + 0.5).astype(np.int64) - np.array([ky, kx]) // 2
        low = np.maximum(corner.min(axis=0) - 1, 0)
        high = np.minimum(corner.max(axis=0) + np.array([ky, kx]) + 1, problem.shape[1:])
        offset, shape = low, (shape[0], int(high[0] - low[0]), int(high[1] - low[1]))
        part = np.ascontiguousarray(volume[:, low[0] : high[0], low[1] : high[1]])
    moved = offset * np.array(problem.voxel_size[1:])
    counts = problem.patterns[index]
    if gain != 1:
        counts = (counts / np.float32(gain)).astype(np.float32)
    light = problem.probe / gain**0.5
    cut = replace(
        problem,
        patterns=counts,
        probe=light,
        positions=problem.positions[index] - moved,
        shape=shape,
        mask=good.astype(np.float32),
        scan=None,
        scan_index=None,
        background=problem.background / gain,
    )
    if found is None:
        return cut, part, None
    return (
        cut,
        part,
        replace(
            found,
            probe=(np.asarray(found.probe) / gain**0.5).astype(np.complex64),
            positions=np.asarray(found.positions)[index] - moved,
            background=found.background / gain,
        ),
    )
