"""Each failure is recognised where it is, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.evaluation.failures import failures
from napari_mepdiff.specimen.render import render_batch

VOXEL = (1.6, 0.2, 0.2)


@pytest.fixture(scope="module")
def crystal():
    rng = np.random.default_rng(0)
    numbers, places = [], []
    for y in (1.5, 4.5, 7.5, 10.5):
        for x in (1.5, 4.5, 7.5, 10.5):
            for s in rng.permutation(8)[:3]:
                numbers.append((38, 22)[int(x) % 2])
                places.append((1.6 * s + 0.8, y, x))
    return np.array(numbers), np.array(places)


def draw(numbers, places):
    return render_batch([(numbers, places)], (8, 64, 64))[0].numpy()


def test_the_truth_has_no_failures_at_any_scale(crystal):
    truth = draw(*crystal)
    for volume in (truth, 3 * truth + 0.2):
        found = failures(volume, truth, {"positions": crystal[1]}, VOXEL)
        assert found.names() == []
        assert (found.atoms, found.missing, found.extra, found.moved_slices) == (48, 0, 0, 0)
        assert found.contrast == pytest.approx(1, abs=1e-6)
        assert found.structure == pytest.approx(1, abs=1e-6)


def test_slices_in_another_order(crystal):
    truth = draw(*crystal)
    found = failures(truth[[0, 2, 1, 3, 4, 5, 7, 6]], truth, {"positions": crystal[1]}, VOXEL)
    assert found.moved_slices == 4
    assert "slices in the wrong order" in found.names()
    assert found.structure > 0.99


def test_an_even_spread_is_blurred_and_misses_atoms(crystal):
    truth = draw(*crystal)
    found = failures(
        np.repeat(truth.mean(axis=0, keepdims=True), 8, axis=0),
        truth,
        {"positions": crystal[1]},
        VOXEL,
    )
    assert found.contrast < 0.05
    assert {"blurred in depth", "missing atoms"} <= set(found.names())


def test_missing_and_extra_atoms_are_counted_one_by_one(crystal):
    numbers, places = crystal
    truth = draw(numbers, places)
    fewer = failures(draw(numbers[2:], places[2:]), truth, {"positions": places}, VOXEL)
    assert (fewer.missing, fewer.extra) == (2, 0)
    column = places[np.hypot(*(places[:, 1:] - places[0, 1:]).T) < 0.1]
    free = next(s for s in range(8) if not any(abs(p[0] - 1.6 * s - 0.8) < 0.1 for p in column))
    more = failures(
        draw(
            np.append(numbers, numbers[0]), np.vstack([places, [1.6 * free + 0.8, *places[0, 1:]]])
        ),
        truth,
        {"positions": places},
        VOXEL,
    )
    assert (more.missing, more.extra) == (0, 1)


def test_another_crystal_is_another_structure(crystal):
    truth = draw(*crystal)
    other = draw(crystal[0], (crystal[1] + [0, 1.5, 1.5]) % [12.8, 12.8, 12.8])
    assert "another structure" in failures(other, truth, {"positions": crystal[1]}, VOXEL).names()
    with pytest.raises(ValueError, match="like with like"):
        failures(truth[:4], truth, {"positions": crystal[1]}, VOXEL)
