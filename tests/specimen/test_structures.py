"""Tables and folders of structures, the split, the stream of volumes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ase.io import read

from napari_mepdiff.specimen.structures import bundled, load_split, load_structures, reduced_formula
from napari_mepdiff.specimen.table import read_table, to_npz

from ..conftest import CRYSTALS
from ..needs import needs


@pytest.fixture(scope="module")
def everything():
    return load_structures()


def test_the_bundled_table_is_whole(everything):
    assert len(everything) == 49384
    assert everything.problems == []
    assert everything.experimental.all()
    assert everything.start[-1] == len(everything.numbers) == len(everything.fractional)
    assert bundled().stat().st_size < 12e6


def test_the_bundled_table_is_what_it_was_as_parquet(everything):
    """Its crystals are those that the shipped prior was trained and judged on, to the last bit."""
    digest = hashlib.sha256()
    for name in ("lattice", "start", "numbers", "fractional", "experimental"):
        digest.update(getattr(everything, name).tobytes())
    digest.update("\n".join(everything.names + everything.formulas).encode())
    assert digest.hexdigest() == "65bb34a4439c833f94e607297f62d2abfc6c0dad22ed9819d14717625cb71110"


def test_the_bundled_table_needs_no_pyarrow():
    """A package of 170 MB is not installed for one table."""
    code = """if True:
        import sys
        sys.modules["pyarrow"] = None
        from napari_mepdiff.specimen.structures import load_structures
        assert load_structures().atoms("mp-5229").get_chemical_formula() == "O3SrTi"
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_a_parquet_table_needs_is_said(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'needs the package pyarrow.*"napari-mepdiff\[train\]"'):
        load_structures(tmp_path / "t.parquet")


def test_one_structure_by_its_name(everything):
    atoms = everything.atoms("mp-5229")
    cell, numbers, fractional = everything.cell(everything.names.index("mp-5229"))
    assert np.allclose(cell, atoms.cell.array)
    assert np.array_equal(numbers, atoms.numbers)
    assert np.allclose(fractional, atoms.get_scaled_positions(), atol=1e-6)
    assert atoms.info["id"] == "mp-5229"
    assert reduced_formula(atoms.numbers) == "O3 Sr Ti"
    with pytest.raises(KeyError, match="no structure 'mp-none'"):
        everything.atoms("mp-none")


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
    assert not any(
        reduced_formula(train.cell(int(i))[1]) in held for i in rng.integers(len(train), size=2000)
    )
    for part in ("validation", "test"):
        there = everything.part(part)
        assert there.names == [e["id"] for e in split[part]]
        assert [reduced_formula(there.cell(i)[1]) for i in range(100)] == [
            e["formula"] for e in split[part]
        ]
    dropped = len(everything) - len(train)
    assert 204 <= dropped < 1000


def test_the_crystals_of_the_samples_are_held_out(everything):
    train = set(everything.part("train").formulas)
    for path in CRYSTALS.glob("*.cif"):
        assert reduced_formula(read(path).numbers) not in train


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


def _table(path, **change):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "id": "good",
        "lattice": [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0],
        "numbers": [11, 17],
        "frac_u16": [0, 0, 0, 32768, 32768, 32768],
    }
    bad = {**row, "id": "bad", **change}
    pq.write_table(
        pa.Table.from_pylist(
            [row, bad],
            schema=pa.schema(
                [
                    ("id", pa.string()),
                    ("lattice", pa.list_(pa.float32())),
                    ("numbers", pa.list_(pa.uint8())),
                    ("frac_u16", pa.list_(pa.uint16())),
                ]
            ),
        ),
        path,
    )
    return path


@needs("pyarrow")
@pytest.mark.parametrize("form", ["parquet", "npz"])
@pytest.mark.parametrize(
    "change",
    [
        {"frac_u16": [0, 0, 0]},
        {"numbers": []},
        {"lattice": [1.0, 2.0]},
        {"lattice": [0.0] * 9},
        {"lattice": [float("nan")] * 9},
        {"numbers": [0, 200]},
    ],
)
def test_a_corrupt_row_is_left_out_and_the_rest_goes_on(tmp_path, change, form):
    _table(tmp_path / "t.parquet", **change)
    to_npz(tmp_path / "t.parquet", tmp_path / "t.npz")
    found = load_structures(tmp_path / f"t.{form}")
    assert found.names == ["good"]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("bad:")
    assert found.formulas == ["Cl Na"]
    cell, numbers, fractional = found.cell(0)
    assert np.array_equal(cell, 4 * np.eye(3))
    assert numbers.tolist() == [11, 17]
    assert fractional.tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]
    with pytest.raises(KeyError, match=r"no structure 'bad' in t\..*\(bad: "):
        found.atoms("bad")


@needs("pyarrow")
def test_a_table_without_the_columns_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "lattice": [1.0]}), tmp_path / "u.parquet")
    with pytest.raises(ValueError, match=r"lacks the columns \['frac_u16', 'numbers'\]"):
        read_table(tmp_path / "u.parquet")
    np.savez(tmp_path / "u.npz", lattice=np.zeros(9))
    with pytest.raises(ValueError, match="lacks the columns"):
        load_structures(tmp_path / "u.npz")


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_structures(tmp_path / "nothing.parquet")
    (tmp_path / "x.npz").write_bytes(b"PK but not really")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        load_structures(tmp_path / "x.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no CIF file"):
        load_structures(tmp_path / "empty")


@needs("pyarrow")
def test_a_damaged_parquet_file_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        load_structures(tmp_path / "x.parquet")
