"""A reconstruction judged against truth and data in one call, on the field where both can be
compared.
"""

from __future__ import annotations

import numpy as np
import torch

from ..measurement.dataset import FourDSTEM
from ..physics.likelihood import Likelihood
from ..physics.misfit import relative_deviance
from ..reconstruction.problem import Problem
from ..specimen.volume import Volume
from .metrics import Scores, evaluate


def scanned_field(data: FourDSTEM, volume: Volume) -> tuple[slice, slice] | None:
    """Voxels (y, x) that the scan covers on an extended canvas; None where the whole counts."""
    if data.boundary == "periodic":
        return None
    positions = data.scan_positions()
    pixel = np.array(volume.voxel_size[1:])
    low = np.floor((positions.min(axis=0) - volume.origin[1:]) / pixel).astype(int).clip(0)
    high = np.ceil((positions.max(axis=0) - volume.origin[1:]) / pixel).astype(int)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def judge(
    volume: Volume,
    truth: Volume,
    data: FourDSTEM | None = None,
    with_deviance: bool = True,
    *,
    no_data: str = "",
) -> Scores:
    """All metrics; with the measurement at hand also its misfit, on the scanned field.

    Parameters
    ----------
    volume : Volume
        The reconstruction.
    truth : Volume
        What it is compared with.
    data : FourDSTEM, optional
        The measurement. Its atoms count where `truth` is its own ground truth.
    with_deviance : bool
        Whether to compute the misfit, which takes a second or more.
    no_data : str
        Why there is no measurement, where one was asked for.

    Returns
    -------
    Scores
        What could not be computed is None, and ``missing`` says why: a measurement that is damaged
        or belongs to another volume does not pass for one that was not asked for.

    Raises
    ------
    ValueError
        If the shapes or voxel sizes of the volumes differ.
    """
    missing, atoms, scanned, deviance = {}, None, None, None
    if data is not None:
        scanned = scanned_field(data, volume)
        if _own_truth(truth, data):
            atoms = data.truth_atoms
        else:
            missing["atoms_in_slice"] = "the reference is not the ground truth of the measurement"
        if not with_deviance:
            missing["deviance"] = "it was not asked for"
        else:
            try:
                deviance = data_deviance(volume, data)
            except (ValueError, OSError, MemoryError) as error:
                missing["deviance"] = " ".join(str(error).split()) or type(error).__name__
    elif no_data:
        missing["deviance"] = no_data
    return evaluate(volume, truth, atoms, deviance, scanned, missing)


def _own_truth(truth: Volume, data: FourDSTEM) -> bool:
    own = data.truth
    return own is not None and (
        truth is own or np.array_equal(truth.to_unit(own.unit, own.energy).array, own.array)
    )


def data_deviance(volume: Volume, data: FourDSTEM) -> float:
    """Poisson deviance of the data under the volume over its expectation; 1 at shot noise.

    Raises
    ------
    ValueError
        If the volume is not on the grid that the data ask for, or patterns cannot be read.
    """
    problem = Problem.from_data(
        data,
        slices=volume.shape[0],
        slice_thickness=volume.slice_thickness or volume.voxel_size[0],
        check=False,
    )
    if problem.shape != volume.shape:
        raise ValueError(f"the volume is {volume.shape}, the data ask for {problem.shape}")
    like = problem.likelihood("poisson")
    assert isinstance(like, Likelihood)
    x = torch.from_numpy(volume.to_unit("rad", problem.energy).array)
    weight = like.weight.cpu().numpy()
    ratios, sizes = [], []
    for batch in np.array_split(np.arange(like.count), max(1, like.count // 128)):
        model = like.patterns(x, batch).cpu().numpy()
        ratios.append(relative_deviance(like.counts(batch).cpu().numpy(), model, weight))
        sizes.append(len(batch))
    return float(np.average(ratios, weights=sizes))
