"""Measurements that a network in training may ask: random microscopes over its own volumes.

Each group of volumes gets a microscope: aperture, aberrations, scan, and a model of it whose focus
and astigmatism are slightly wrong; each volume a dose. Patterns are counted (Poisson).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.devices import to_device
from ..physics.many import PeriodicScan
from ..physics.optics import Optics, probe_from_parameters
from ..prior.answer import channels
from ..prior.process import SCALE
from .crystals import ENERGY, VOXEL_SIZE

GROUP, DENSE_GROUP = 40, 8  # volumes that share a microscope of few and of many positions
DENSE = 0.5  # share of microscopes with many positions: what slices say apart needs them
SCANS = {  # few sizes, since a GPU plans its transforms anew for each
    False: ((3, 4), (4, 4), (4, 5), (5, 5), (5, 6), (6, 6)),
    True: ((8, 8), (10, 10), (12, 12), (14, 14)),
}
DOSE = (1e3, 1e7)  # e/Å², log-uniform
WRONG = 5.0  # Å, largest error of C10 and of C12


@dataclass(frozen=True)
class Microscope:
    """A microscope and what is believed of it.

    Attributes
    ----------
    optics, believed : Optics
        Of the measurement, and of its model.
    places : tuple of (y, x)
        Probe positions, pixels.
    area : float
        Å² per position: electrons per pattern are the dose times this.
    band_limit : float or None
    """

    optics: Optics
    believed: Optics
    places: tuple[tuple[int, int], ...]
    area: float
    band_limit: float | None

    def scan(self, side: tuple[int, int], believed: bool, device: str) -> PeriodicScan:
        """Its scan over a field of so many pixels."""
        pixel = VOXEL_SIZE[1:]
        probe = probe_from_parameters(self.believed if believed else self.optics, side, pixel)
        return PeriodicScan.over(
            probe[0],
            self.places,
            pixel_size=pixel,
            slice_thickness=VOXEL_SIZE[0],
            energy=ENERGY,
            band_limit=self.band_limit,
            device=device,
        )


def draw_microscope(
    rng: np.random.Generator, side: tuple[int, int], dense: bool = False
) -> Microscope:
    """A random one: 15–30 mrad, −100 to 300 Å of overfocus as far as the probe fits the field,
    12–36 positions (64–196 if dense) over the whole field, or as a raster of 0.4–1.2 Å."""
    field = np.array(side) * np.array(VOXEL_SIZE[1:])
    angle = rng.uniform(15.0, 30.0)
    widest = 0.47 * float(field.min()) / (angle * 1e-3)  # Å of defocus
    focus = float(np.clip(rng.uniform(-100.0, 300.0), -widest, widest))
    twofold = rng.normal(0, 5.0, 2)
    optics = Optics(
        energy=ENERGY,
        semi_angle=angle,
        overfocus=focus,
        C12=float(np.hypot(*twofold)),
        phi12=float(np.arctan2(twofold[1], twofold[0]) / 2),
        C30=float(rng.choice([0.0, rng.uniform(0, 10_000)])),
    )
    off = rng.uniform(-WRONG, WRONG, 3) * (rng.random() < 0.8)
    own = optics.cartesian
    believed = optics.with_cartesian(
        {
            "C10": own["C10"] + off[0],
            "C12a": own["C12a"] + off[1] / np.sqrt(2),
            "C12b": own["C12b"] + off[2] / np.sqrt(2),
        }
    )
    ny, nx = SCANS[dense][int(rng.integers(len(SCANS[dense])))]
    if rng.random() < 0.7:
        pitch = field / (ny, nx)
        area = float(field.prod()) / (ny * nx)
    else:
        pitch = np.full(2, rng.uniform(0.4, 1.2))
        area = float(pitch.prod())
    grid = np.stack(np.meshgrid(np.arange(ny), np.arange(nx), indexing="ij"), -1).reshape(-1, 2)
    at = (grid + rng.uniform(-0.3, 0.3, grid.shape)) * pitch + rng.uniform(0, 1, 2) * field
    pixels = np.rint(at / np.array(VOXEL_SIZE[1:])).astype(int) % np.array(side)
    return Microscope(
        optics,
        believed,
        tuple((int(y), int(x)) for y, x in pixels),
        area,
        2 / 3 if rng.random() < 0.5 else None,
    )


@torch.no_grad()
def ask(
    guess: Tensor, truth: Tensor, seed: int, rng: torch.Generator, device: str = "cpu"
) -> Tensor:
    """What measurements of the true volumes say of guesses, (B, 4, D, H, W), see
    :mod:`~napari_mepdiff.prior.answer`.

    Parameters
    ----------
    guess, truth : Tensor
        (B, D, H, W), scaled.
    seed : int
        Of the microscopes.
    rng : torch.Generator
        Of the counts; where the volumes are.
    """
    side = (int(guess.shape[-2]), int(guess.shape[-1]))
    draw, out = np.random.default_rng(seed), []
    low = 0
    while low < len(guess):
        dense = draw.random() < DENSE
        part = slice(low, min(low + (DENSE_GROUP if dense else GROUP), len(guess)))
        low = part.stop
        x = guess[part].float()
        microscope = draw_microscope(draw, side, dense)
        dose = np.exp(draw.uniform(math.log(DOSE[0]), math.log(DOSE[1]), len(x)))
        electrons = to_device((dose * microscope.area).astype(np.float32), device)
        per = electrons[:, None, None, None]
        rate = microscope.scan(side, False, device).patterns(truth[part].float() / SCALE) * per
        counts = torch.poisson(rate, generator=rng)
        model = microscope.scan(side, True, device)
        # −log p is twice the amplitude misfit
        slope = 2 * model.gradient(x / SCALE, counts, electrons)
        through = model.light(x.shape[1])[None] * per
        out.append(channels(x, slope, through, SCALE))
    return torch.cat(out)
