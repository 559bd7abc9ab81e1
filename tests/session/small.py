"""A small measurement in a file, and quick settings of every solver, for runs that are
written down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
from napari_mepdiff.measurement.formats import own
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.specimen.volume import Volume
from tests.prior.nets import tiny
from tests.reconstruction.small import crystal_problem

QUICK: dict[str, dict[str, Any]] = {
    "adam": {"iterations": 8, "learning_rate": 5e-3},
    "lbfgs": {"iterations": 5, "evaluations": 3, "learning_rates": (0.5,)},
    "ptyrad-adam": {"iterations": 5, "learning_rate": 5e-3},
    "ptyrad-lbfgs": {"iterations": 3, "evaluations": 3, "learning_rates": (0.5,)},
    "atomic": {"iterations": 10, "elements": ("C",), "held_out": 0.2, "penalty": 0.5},
    "refine": {"iterations": 6, "probe_start": 1, "position_start": 1, "volume_step": 4.0},
    "dps": {"guidance": "decoupled", "steps": 10, "evaluations": 5},
}


def small_data(truth: bool = True, seed: int = 0, scan: int = 5) -> FourDSTEM:
    """25 patterns of 32 × 32 px of a crystal in 4 slices of 32 × 32 voxels, with ground truth."""
    problem, volume = crystal_problem(seed=seed, scan=scan)
    return FourDSTEM(
        np.asarray(problem.patterns).reshape(scan, scan, 32, 32),
        Calibration(
            pixel_size=1 / 6.4, energy=300, semi_angle=20, scan_step=(6.4 / scan, 6.4 / scan)
        ),
        optics=Optics(semi_angle=20, overfocus=60, C30=5000),
        boundary="periodic",
        canvas=(32, 32),
        truth=Volume(volume, (1.6, 0.2, 0.2), energy=300.0) if truth else None,
    )


def small_file(path: Path, **options: Any) -> Path:
    """The small measurement in a file."""
    own.save(small_data(**options), path)
    return path


def prior_file(path: Path) -> str:
    """A tiny prior of random weights: steps take milliseconds."""
    torch.manual_seed(0)
    tiny().save(path)
    return str(path)
