"""Columns and their atoms from depth sums that the renderer made."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.reconstruction.atoms.search import find_columns
from napari_mepdiff.specimen.render import render_batch

PLACES = [(2.03, 2.51), (2.62, 7.24), (5.87, 4.93), (9.71, 2.22), (8.33, 9.04)]
COUNTS = [{38: 3}, {22: 2}, {8: 4}, {22: 1, 8: 1}, {38: 1}]


def depth_sum(places=PLACES, counts=COUNTS, noise=0.0):
    numbers, positions = [], []
    for (y, x), column in zip(places, counts, strict=True):
        for z in column:
            for _ in range(column[z]):
                numbers.append(z)
                positions.append((0.8 + 1.6 * (len(positions) % 8), y, x))
    volume = render_batch([(np.array(numbers), np.array(positions))], (8, 60, 60))[0]
    return volume.sum(0).numpy() + noise * np.random.default_rng(0).normal(size=(60, 60))


@pytest.mark.parametrize("noise", [0.0, 0.003])  # what solvers leave in the middle of a field
def test_places_and_numbers_of_atoms_are_found(noise):
    found = find_columns(depth_sum(noise=noise) + 0.3, ["Sr", "Ti", "O", "H"], (0.2, 0.2), 300)
    assert found.numbers == (8, 22, 38)  # hydrogen cannot be counted
    for (y, x), column in zip(PLACES, COUNTS, strict=True):
        distance = np.hypot(*(found.places - (y, x)).T)
        j = int(distance.argmin())
        assert distance[j] < 0.03
        assert {
            z: int(n) for z, n in zip(found.numbers, found.counts[j], strict=True) if n
        } == column
    assert len(found.places) == len(PLACES)
    assert found.explained > 0.99
    species = found.species((60, 60), (0.2, 0.2), 300)
    assert species.images.shape == (6, 60, 60)
    assert int(species.count.sum()) == 12


def test_what_cannot_be_counted_is_said():
    with pytest.raises(ValueError, match="elements are known"):
        find_columns(depth_sum(), ["H"], (0.2, 0.2), 300)
    with pytest.raises(ValueError, match="nothing in the depth sum"):
        find_columns(np.zeros((40, 40)), ["Sr"], (0.2, 0.2), 300)
    with pytest.raises(ValueError, match="finite image"):
        find_columns(np.full((40, 40), np.nan), ["Sr"], (0.2, 0.2), 300)
