"""Nearest training crystals of a volume, wherever it lies and however it is turned: copying would
be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..specimen.kernels import MARGIN
from ..specimen.lattice import fill_box, orientation
from ..specimen.render import render_batch
from ..specimen.structures import Structures
from ..training.stream import VOXEL_SIZE, Augmentation, CrystalStream

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Neighbour:
    """The crystal most like a volume: its name and formula, the axis seen along, and the
    correlation once aligned.
    """

    name: str
    formula: str
    axis: str
    correlation: float


def descriptor(volume: Array) -> NDArray[np.float64]:
    """What stays when a volume is turned in its plane and moved: log power per depth frequency and
    lateral ring.
    """
    volume = np.asarray(volume, dtype=np.float64)
    window = np.hanning(volume.shape[1])[:, None] * np.hanning(volume.shape[2])[None]
    spectrum = np.abs(np.fft.fftn((volume - volume.mean()) * window)) ** 2
    depth, height, width = volume.shape
    ring = np.round(
        np.hypot(
            np.fft.fftfreq(height, 1 / height)[:, None], np.fft.fftfreq(width, 1 / width)[None]
        )
    ).astype(int)
    rings = 22
    out = np.stack(
        [
            np.bincount(ring.ravel(), spectrum[k].ravel())[:rings]
            / np.bincount(ring.ravel())[:rings]
            for k in range(depth // 2 + 1)
        ]
    )
    return np.log(out / out.sum() + 1e-6).ravel()


def nearest(
    volumes: Array,
    structures: Structures,
    *,
    library: int = 3000,
    finalists: int = 4,
    angle: float = 3.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Neighbour]:
    """For each volume (N, D, H, W) in rad the training crystal that it resembles most.

    Parameters
    ----------
    structures : Structures
        Those trained on.
    library : int
        How many of them, drawn at random as in training, are compared by :func:`descriptor`.
    finalists : int
        How many are then turned in steps of `angle` degrees, mirrored, and moved to fit.
    """
    stream = CrystalStream(structures, Augmentation(vacancies=0.0), seed=seed)
    rng = np.random.default_rng([seed, 77])
    shape = volumes.shape[1:]
    size = tuple(n * v for n, v in zip(shape, VOXEL_SIZE, strict=True))
    chosen = stream.choose(rng, library)
    axes = rng.integers(3, size=library)
    table: list[Array] = []
    for low in range(0, library, 32):
        pairs = [
            stream.atoms(rng, size, MARGIN, index=int(i), axis=int(a))  # type: ignore[arg-type]
            for i, a in zip(chosen[low : low + 32], axes[low : low + 32], strict=True)
        ]
        table.extend(descriptor(v) for v in render_batch(pairs, shape).numpy())
    library_table = np.stack(table)
    out = []
    for n, volume in enumerate(volumes):
        distance = np.abs(library_table - descriptor(volume)).sum(axis=1)
        best = Neighbour("", "", "", -1.0)
        for i in np.argsort(distance)[:finalists]:
            value = _aligned(volume, structures, int(chosen[i]), int(axes[i]), angle)
            if value > best.correlation:
                best = Neighbour(
                    structures.names[chosen[i]],
                    structures.formulas[chosen[i]],
                    "abc"[axes[i]],
                    value,
                )
        out.append(best)
        if progress:
            progress(n + 1, len(volumes))
    return out


def _aligned(volume: Array, structures: Structures, index: int, axis: int, angle: float) -> float:
    """Best correlation over in-plane angles, mirror images and moves in all three directions."""
    cell, numbers, fractional = structures.cell(index)
    shape = volume.shape
    size = tuple(n * v for n, v in zip(shape, VOXEL_SIZE, strict=True))
    target = torch.from_numpy(np.asarray(volume, dtype=np.float32))
    target = target - target.mean()
    wanted = torch.fft.rfftn(target).conj() / target.norm()
    best = -1.0
    turns = np.arange(0, 360, angle)
    for low in range(0, len(turns), 24):
        boxes = []
        for degrees in turns[low : low + 24]:
            turn = orientation(cell, "abc"[axis], np.radians(degrees))
            boxes.append(fill_box(cell, numbers, fractional, size, turn, np.zeros(3), MARGIN))  # type: ignore[arg-type]
        boxes = [b for b in boxes if len(b[0])]
        if not boxes:
            continue
        made = render_batch(boxes, shape)
        for flipped in (made, made.flip(1), made.flip(2), made.flip(1, 2)):
            centred = flipped - flipped.mean(dim=(1, 2, 3), keepdim=True)
            cross = torch.fft.irfftn(
                torch.fft.rfftn(centred, dim=(1, 2, 3)) * wanted, s=shape, dim=(1, 2, 3)
            )
            value = cross.amax(dim=(1, 2, 3)) / centred.square().sum(
                dim=(1, 2, 3)
            ).sqrt().clamp_min(1e-9)
            best = max(best, float(value.max()))
    return best
