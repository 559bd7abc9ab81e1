"""Tables and folders of structures, the split, the stream of volumes."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.io import read

from napari_mepdiff.prior.crystals import Augmentation, CrystalStream, fill_box, turn_of
from napari_mepdiff.prior.structures import bundled, load_split, load_structures, reduced_formula
from napari_mepdiff.specimen.crystal import cut_box, load_crystal

from ..conftest import CRYSTALS


@pytest.fixture(scope="module")
def everything():
    return load_structures()


def test_the_bundled_table_is_whole(everything):
    assert len(everything) == 49384
    assert everything.problems == []
    assert everything.experimental.all()
    assert everything.start[-1] == len(everything.numbers) == len(everything.fractional)
    assert bundled().stat().st_size < 12e6


def test_its_rows_are_what_the_reader_of_single_structures_returns(everything):
    from napari_mepdiff.specimen.crystal import from_table

    atoms = from_table(bundled(), "mp-5229")
    index = everything.names.index("mp-5229")
    cell, numbers, fractional = everything.cell(index)
    assert np.allclose(cell, atoms.cell.array)
    assert np.array_equal(numbers, atoms.numbers)
    assert np.allclose(fractional, atoms.get_scaled_positions(), atol=1e-6)
    assert everything.formulas[index] == "O3 Sr Ti" == reduced_formula(atoms.numbers)


def test_nothing_held_out_is_trained_on(everything):
    split = load_split()
    assert [len(split[p]) for p in ("validation", "test")] == [100, 100]
    ids = {p: {e["id"] for e in split[p]} for p in split}
    formulas = {p: {e["formula"] for e in split[p]} for p in split}
    assert all(len(formulas[p]) == len(split[p]) for p in split)
    for a, b in (("validation", "test"), ("validation", "samples"), ("test", "samples")):
        assert not ids[a] & ids[b]
        assert not formulas[a] & formulas[b]
    train = everything.part("train")
    held = set().union(*formulas.values())
    assert not held & set(train.formulas)
    # by composition, computed from the atoms and not from the table's own column
    rng = np.random.default_rng(0)
    assert not any(reduced_formula(train.cell(int(i))[1]) in held for i in rng.integers(len(train), size=2000))
    for part in ("validation", "test"):
        there = everything.part(part)
        assert there.names == [e["id"] for e in split[part]]
        assert [reduced_formula(there.cell(i)[1]) for i in range(100)] == [e["formula"] for e in split[part]]
    dropped = len(everything) - len(train)
    assert 204 <= dropped < 1000


def test_the_crystals_of_the_samples_are_held_out(everything):
    train = set(everything.part("train").formulas)
    for path in CRYSTALS.glob("*.cif"):
        assert reduced_formula(read(path).numbers) not in train


def test_a_stream_of_the_training_part_never_shows_what_is_held_out(everything):
    held = {e["formula"] for side in load_split().values() for e in side}
    stream = CrystalStream(everything.part("train"))
    drawn = stream.choose(np.random.default_rng(0), 5000)
    assert len(set(drawn.tolist())) > 4000
    assert not held & {stream.structures.formulas[i] for i in drawn}


def test_a_folder_of_cifs_is_a_source_too_and_what_is_wrong_in_it_is_named(tmp_path):
    for path in CRYSTALS.glob("*.cif"):
        shutil.copy(path, tmp_path)
    (tmp_path / "broken.cif").write_text("data_x\nnonsense")
    found = load_structures(tmp_path)
    assert len(found) == 4
    assert len(found.problems) == 1
    assert "broken.cif" in found.problems[0]
    with pytest.raises(ValueError, match="'train'"):
        found.part("train")  # the samples' crystals are held out
    assert CrystalStream(found).batch(0, 2, (4, 32, 32)).shape == (2, 4, 32, 32)


def _table(path, **change):
    row = {"id": "good", "lattice": [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0], "numbers": [11, 17],
           "frac_u16": [0, 0, 0, 32768, 32768, 32768]}
    bad = {**row, "id": "bad", **change}
    pq.write_table(pa.Table.from_pylist([row, bad], schema=pa.schema([
        ("id", pa.string()), ("lattice", pa.list_(pa.float32())), ("numbers", pa.list_(pa.uint8())),
        ("frac_u16", pa.list_(pa.uint16()))])), path)
    return path


@pytest.mark.parametrize("change", [
    {"frac_u16": [0, 0, 0]}, {"numbers": []}, {"lattice": [1.0, 2.0]}, {"lattice": [0.0] * 9},
    {"lattice": [float("nan")] * 9}, {"numbers": [0, 200]},
])
def test_a_corrupt_row_is_left_out_and_the_rest_goes_on(tmp_path, change):
    found = load_structures(_table(tmp_path / "t.parquet", **change))
    assert found.names == ["good"]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("bad:")
    assert found.formulas == ["Cl Na"]


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_structures(tmp_path / "nothing.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        load_structures(tmp_path / "x.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no CIF file"):
        load_structures(tmp_path / "empty")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_boxes_hold_the_atoms_that_the_slow_cutter_finds(axis):
    crystal = load_crystal(CRYSTALS / "CuWO4.cif") if (CRYSTALS / "CuWO4.cif").exists() else load_crystal(
        sorted(CRYSTALS.glob("*.cif"))[0])
    angle = 0.3
    turn = turn_of(crystal.cell.array, axis, angle)
    numbers, positions = fill_box(crystal.cell.array, crystal.numbers, crystal.get_scaled_positions(), (12.8, 12.8, 12.8), turn,
                                  np.zeros(3), 4.0)
    slow = cut_box(crystal, zone_axis="abc"[axis], rotation=np.degrees(angle), margin=4.0)
    assert len(numbers) == pytest.approx(len(slow), abs=2)  # an atom on a face may fall on either side
    a = positions[np.lexsort(positions.round(3).T)]
    b = slow.positions[:, ::-1][np.lexsort(slow.positions[:, ::-1].round(3).T)]
    if len(a) == len(b):
        assert np.allclose(a, b, atol=1e-2)


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
        draws = (stream.atoms(np.random.default_rng(n), (12.8, 12.8, 12.8), 4.0, index=n, axis=0) for n in range(40))
        counts.append(sum(len(numbers) for numbers, _ in draws))
    assert counts[1] / counts[0] == pytest.approx(0.8, abs=0.02)


def test_the_fixed_volumes_are_three_per_crystal_and_always_the_same(everything):
    stream = CrystalStream(everything.part("test"))
    volumes, atoms, names = stream.fixed(limit=7)
    again, _, _ = stream.fixed(limit=5)
    assert np.allclose(volumes[:5], again, atol=1e-5)
    assert names[:4] == [f"{stream.structures.names[0]} {a}" for a in "abc"] + [f"{stream.structures.names[1]} a"]
    assert len(atoms) == 7
