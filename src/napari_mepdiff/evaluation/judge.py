"""A reconstruction judged against truth and data in one call, on the field where both can be compared."""

from __future__ import annotations

import numpy as np
import torch

from ..measurement.dataset import FourDSTEM
from ..reconstruction.problem import Problem
from ..specimen.volume import Volume
from .deviance import relative_deviance
from .metrics import Scores, evaluate


def scanned_field(data: FourDSTEM, volume: Volume) -> tuple[slice, slice] | None:
    """Voxels (y, x) that the scan covers on an extended canvas; None where the whole field counts."""
    if data.boundary == "periodic":
        return None
    positions = data.scan_positions()
    pixel = np.array(volume.voxel_size[1:])
    low = np.floor((positions.min(axis=0) - volume.origin[1:]) / pixel).astype(int).clip(0)
    high = np.ceil((positions.max(axis=0) - volume.origin[1:]) / pixel).astype(int)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def judge(volume: Volume, truth: Volume, data: FourDSTEM | None = None, with_deviance: bool = True) -> Scores:
    """All metrics; with the measurement at hand also the deviance over its expectation and the scanned field."""
    atoms = field = deviance = None
    if data is not None:
        atoms = data.truth_atoms
        field = scanned_field(data, volume)
        if with_deviance:
            deviance = data_deviance(volume, data)
    return evaluate(volume, truth, atoms, deviance, field)


def data_deviance(volume: Volume, data: FourDSTEM) -> float:
    """Poisson deviance of the data under the volume over its expectation; 1 at shot noise."""
    problem = Problem.from_data(data, slices=volume.shape[0],
                                slice_thickness=volume.slice_thickness or volume.voxel_size[0], check=False)
    if problem.shape != volume.shape:
        raise ValueError(f"the volume is {volume.shape}, the data ask for {problem.shape}")
    like = problem.likelihood("poisson")
    x = torch.from_numpy(volume.to_unit("rad", problem.energy).array)
    weight = like.weight.cpu().numpy()  # type: ignore[attr-defined]
    ratios, sizes = [], []
    for batch in np.array_split(np.arange(like.count), max(1, like.count // 128)):
        model = like.patterns(x, batch).cpu().numpy()  # type: ignore[attr-defined]
        ratios.append(relative_deviance(like.counts(batch).cpu().numpy(), model, weight))  # type: ignore[attr-defined]
        sizes.append(len(batch))
    return float(np.average(ratios, weights=sizes))
