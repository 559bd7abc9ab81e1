"""Columns of atoms along the beam: where they stand, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """Columns of atoms along the beam.

    Attributes
    ----------
    places : ndarray
        (n, 2) as (y, x) in Å from the centre of the first pixel.
    numbers : tuple of int
        Atomic numbers of the elements, E of them.
    counts : ndarray
        (n, E) atoms of each element in each column, over the whole depth.
    residual : ndarray
        (H, W) rad, what of the depth sum the columns do not explain.
    explained : float
        Fraction of the sum's variance that they do.
    """

    places: NDArray[np.float64]
    numbers: tuple[int, ...]
    counts: NDArray[np.int64]
    residual: NDArray[np.float64]
    explained: float

    def species(
        self, shape: tuple[int, int], pixel_size: tuple[float, float], energy: float
    ) -> Species:
        """One entry for every kind of atom of every column."""
        column, element = np.nonzero(self.counts)
        images = images_of(self.places, self.numbers, shape, pixel_size, energy)
        picked = images[torch.from_numpy(column), torch.from_numpy(element)]
        return Species(
            column,
            np.asarray(self.numbers)[element],
            self.counts[column, element],
            picked.contiguous(),
        )


@dataclass(frozen=True)
class Species:
    """Kinds of atoms in columns: C of them, with the image of one atom each.

    Attributes
    ----------
    column : ndarray
        (C,), index into the columns.
    number : ndarray
        (C,), atomic number.
    count : ndarray
        (C,), atoms over the depth.
    images : Tensor
        (C, H, W), phase of one atom, rad.
    """

    column: NDArray[np.int64]
    number: NDArray[np.int64]
    count: NDArray[np.int64]
    images: Tensor


def images_of(
    places: NDArray[np.float64],
    numbers: tuple[int, ...],
    shape: tuple[int, ...],
    pixel: tuple[float, float],
    energy: float,
) -> Tensor:
    """(n, E, H, W): one atom of each element at each place, rad."""
    from ...specimen.render import render_batch

    atoms = [(np.array([z]), np.array([[0.5, y, x]])) for y, x in places for z in numbers]
    return render_batch(atoms, (1, *shape), (1.0, *pixel), energy=energy)[:, 0].reshape(  # type: ignore[arg-type]
        len(places), len(numbers), *shape
    )
