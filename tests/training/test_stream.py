"""The stream of volumes that the prior is trained on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.specimen.structures import load_split, load_structures
from napari_mepdiff.training.stream import Augmentation, CrystalStream

from ..conftest import CRYSTALS


@pytest.fixture(scope="module")
def everything():
    return load_structures()


def test_a_stream_of_the_training_part_never_shows_what_is_held_out(everything):
    held = {e["formula"] for side in load_split().values() for e in side}
    stream = CrystalStream(everything.part("train"))
    drawn = stream.choose(np.random.default_rng(0), 5000)
    assert len(set(drawn.tolist())) > 4000
    assert not held & {stream.structures.formulas[i] for i in drawn}


def test_batches_are_fresh_repeatable_and_varied(everything):
    stream = CrystalStream(everything.part("validation"), seed=4)
    a, again, b = stream.batch(0, 3), stream.batch(0, 3), stream.batch(1, 3)
    assert np.array_equal(a, again)
    assert not np.array_equal(a, b)
    assert a.shape == (3, 8, 64, 64)
    assert float(a.min()) > -0.05
    assert 0.1 < float(a.max()) < 3.2
    other = CrystalStream(everything.part("validation"), seed=5).batch(0, 3)
    assert not np.array_equal(a, other)


def test_experimental_structures_are_drawn_oftener():
    one = load_structures()
    half = one.choose(np.arange(100))
    half.experimental[50:] = False
    stream = CrystalStream(half, experimental_weight=4.0)
    draws = stream.choose(np.random.default_rng(0), 20000)
    assert (draws < 50).mean() == pytest.approx(0.8, abs=0.02)


def test_vacancies_leave_atoms_out(everything):
    part = everything.part("validation")
    counts = []
    for share in (0.0, 0.2):
        stream = CrystalStream(part, Augmentation(vacancies=share))
        draws = (
            stream.atoms(np.random.default_rng(n), (12.8, 12.8, 12.8), 4.0, index=n, axis=0)
            for n in range(40)
        )
        counts.append(sum(len(numbers) for numbers, _ in draws))
    assert counts[1] / counts[0] == pytest.approx(0.8, abs=0.02)


def test_the_fixed_volumes_are_three_per_crystal_and_always_the_same(everything):
    stream = CrystalStream(everything.part("test"))
    volumes, atoms, names = stream.fixed(limit=7)
    again, _, _ = stream.fixed(limit=5)
    assert np.allclose(volumes[:5], again, atol=1e-5)
    assert names[:4] == [f"{stream.structures.names[0]} {a}" for a in "abc"] + [
        f"{stream.structures.names[1]} a"
    ]
    assert len(atoms) == 7


def test_a_folder_of_cifs_can_be_trained_on():
    stream = CrystalStream(load_structures(CRYSTALS))
    assert stream.batch(0, 2, (4, 32, 32)).shape == (2, 4, 32, 32)


def test_beams_along_any_direction_are_drawn_as_often_as_asked(everything):
    """Turned draws differ from those along a, b and c; without them nothing else changes."""
    part = everything.part("validation")
    draws = []
    for share in (0.0, 0.5, 1.0):
        stream = CrystalStream(part, Augmentation(any_direction=share, rotate=False, shift=False))
        boxes = [
            stream.atoms(np.random.default_rng(n), (6.4, 12.8, 12.8), 0.0, index=5, axis=2)
            for n in range(60)
        ]
        draws.append([b[1].tobytes() for b in boxes])
    turned = [np.mean([a != b for a, b in zip(draws[0], d, strict=True)]) for d in draws]
    assert turned[0] == 0
    assert 0.3 < turned[1] < 0.7
    assert turned[2] == 1
