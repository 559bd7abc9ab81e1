"""A crystal's few atoms in 4 slices of 32 × 32 px, recorded by our own forward model.

Small enough for many runs.
"""

from __future__ import annotations

import numpy as np
import torch

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.reconstruction.atoms import occupancy
from napari_mepdiff.reconstruction.diffusion import atoms
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.specimen.render import render_batch

ELEMENTS = ("Ti", "Sr")


def crystal_problem(electrons=2e5, boundary="periodic", seed=0, scan=9, columns=9):
    """Problem and truth (4, 32, 32).

    Columns of Sr and Ti 2.1 Å apart, each with atoms in some slices; the first ``columns`` of 9.
    """
    rng = np.random.default_rng(seed)
    numbers, positions = [], []
    for i, y in enumerate((1.1, 3.2, 5.3)):
        for j, x in enumerate((1.1, 3.2, 5.3)):
            if 3 * i + j >= columns:
                break
            for s in rng.permutation(4)[: 1 + (i + j) % 2]:
                numbers.append((22, 38)[(i * 3 + j) % 2])
                positions.append((1.6 * s + 0.8, y + 0.07 * i, x - 0.05 * j))
    truth = render_batch([(np.array(numbers), np.array(positions))], (4, 32, 32))[0]
    origin, canvas = (0.0, 0.0), truth
    if boundary == "extended":
        canvas = torch.zeros(4, 64, 64)
        canvas[:, 16:48, 16:48] = truth
        origin = (3.3, 3.3)
    optics = Optics(semi_angle=20, overfocus=60, C30=5000)
    probe = probe_from_parameters(optics, (32, 32), (0.2, 0.2)) * electrons**0.5
    positions_ = Raster(
        shape=(scan, scan), step=(6.4 / scan, 6.4 / scan), origin=origin
    ).positions()
    like = Likelihood(
        np.zeros((scan**2, 32, 32)),
        probe,
        positions_,
        tuple(canvas.shape),
        pixel_size=(0.2, 0.2),
        slice_thickness=1.6,
        energy=300.0,
        boundary=boundary,
    )
    counts = rng.poisson(like.patterns(canvas).numpy()).astype(np.float32)
    problem = Problem(
        patterns=counts,
        probe=probe,
        positions=positions_,
        shape=tuple(canvas.shape),
        voxel_size=(1.6, 0.2, 0.2),
        slice_thickness=(1.6,) * 4,
        energy=300.0,
        boundary=boundary,
    )
    return problem, canvas.numpy()


def shorten_sampling(put=setattr):
    """Sample whole atoms at fewer temperatures, for fewer sweeps, in fewer chains; all else stays.

    ``put(module, name, value)`` sets a constant.
    """
    for name, value in {"RUNGS": 2, "BURN": 4, "SWEEPS": 8, "CHORDS": 2}.items():
        put(occupancy, name, value)
    put(atoms, "CHAINS", 3)
