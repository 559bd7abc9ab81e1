"""A small measurement with one thing wrong, and the problem of whoever does not know of it.

36 columns of Sr and Ti in 4 slices of 64 × 64 px, recorded by our own forward model.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.specimen.render import render_batch

TOLD = Optics(semi_angle=20, overfocus=60, C30=5000)
SIDE, PIXEL, THICK = 64, 0.2, 4.0
FIELD = SIDE * PIXEL
ELECTRONS = 2e5


def optics(**fields) -> Optics:
    """What is told, with something else."""
    return Optics.model_validate({**TOLD.model_dump(), **fields})


@functools.cache
def specimen() -> torch.Tensor:
    """(4, 64, 64), rad."""
    rng = np.random.default_rng(0)
    numbers, places = [], []
    for i in range(6):
        for j in range(6):
            for s in rng.permutation(4)[: 1 + (i + j) % 3]:
                numbers.append((22, 38)[(i + j) % 2])
                places.append((THICK * (s + 0.5), 1.1 + 2.13 * i, 1.0 + 2.13 * j))
    atoms = (np.array(numbers), np.array(places))
    return render_batch([atoms], (4, SIDE, SIDE), voxel_size=(THICK, PIXEL, PIXEL))[0]


def measured(
    true: Optics = TOLD,
    *,
    scan: int = 8,
    jitter: float = 0.0,
    affine=((1.0, 0.0), (0.0, 1.0)),
    tilt=(0.0, 0.0),
    background: float = 0.0,
    blur: float = 0.0,
    source: float = 0.0,
    centre=(0, 0),
    hot: tuple[int, int] | None = None,
    gain: float = 1.0,
    electrons: float = ELECTRONS,
    seed: int = 0,
) -> Problem:
    """The problem as the logbook tells it; everything that is given here is not told."""
    rng = np.random.default_rng(seed)
    told = Raster(shape=(scan, scan), step=(FIELD / scan, FIELD / scan)).positions()
    middle = told.mean(axis=0)
    places = (told - middle) @ np.array(affine).T + middle + jitter * rng.normal(size=told.shape)
    probe = probe_from_parameters(true, (SIDE, SIDE), (PIXEL, PIXEL)) * electrons**0.5
    like = Likelihood(
        np.zeros((scan**2, SIDE, SIDE)), probe, places, (4, SIDE, SIDE),
        pixel_size=(PIXEL, PIXEL), slice_thickness=THICK, energy=300.0,
    )  # fmt: skip
    like.set_gaps(tilt=tilt)
    like.set_detector(background=background, blur=blur)
    clean = 0.0
    shifts = rng.normal(0, source, (12, 2)) if source else np.zeros((1, 2))
    for shift in shifts:
        like.set_positions(torch.from_numpy(places + shift))
        clean = clean + like.patterns(specimen()).numpy().astype(np.float64) / len(shifts)
    counts = rng.poisson(np.roll(clean, centre, (1, 2))).astype(np.float32)
    if hot is not None:
        counts[:, hot[0], hot[1]] = 10 * counts.mean(axis=0).max()
    counts *= np.float32(gain)
    wave = probe_from_parameters(TOLD, (SIDE, SIDE), (PIXEL, PIXEL))
    return Problem(
        patterns=counts,
        probe=wave * float(counts.sum(axis=(1, 2)).mean()) ** 0.5,
        positions=told,
        shape=(4, SIDE, SIDE),
        voxel_size=(THICK, PIXEL, PIXEL),
        slice_thickness=(THICK,) * 4,
        energy=300.0,
        boundary="periodic",
        optics=TOLD,
        told=TOLD,
    )
