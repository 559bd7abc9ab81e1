"""Which files are volumes: found out at once, whatever is dropped on the window."""

from __future__ import annotations

import builtins
import subprocess

import h5py
import numpy as np
import pytest

from napari_mepdiff.gui.kinds import is_volume
from napari_mepdiff.measurement.samples import sample_path
from napari_mepdiff.specimen.volume import Volume


def test_a_dropped_file_is_told_apart_without_a_process_and_without_its_data(tmp_path, monkeypatch):
    """A large file of another program, dropped on the window, held it up while a process was
    started and the whole file was walked through."""
    Volume(np.zeros((2, 4, 4))).save(tmp_path / "volume.h5")
    big = np.zeros((20, 20, 64, 64), np.float32)
    with h5py.File(tmp_path / "ptyrad.hdf5", "w") as file:
        file["avg"] = big
        file["optimizable_tensors/objp"] = np.zeros((1, 2, 4, 4))
    with h5py.File(tmp_path / "ptyrad_many.hdf5", "w", libver=("v108", "v108")) as file:
        for n in range(12):  # more than eight names: the newer forms of HDF5 keep an index of them
            file[f"record_{n}"] = n
        file["optimizable_tensors/objp"] = np.zeros((1, 2, 4, 4))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["entry/data"] = big
    with h5py.File(tmp_path / "vol_inside.h5", "w") as file:
        file["entry/volume"] = big
    (tmp_path / "none.h5").write_bytes(b"this is not HDF5 at all" * 100)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(h5py, "File", None)
    read = 0
    real = builtins.open

    class Counted:
        def __init__(self, handle):
            self.handle = handle

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.handle.close()

        def seek(self, at):
            return self.handle.seek(at)

        def read(self, length):
            nonlocal read
            out = self.handle.read(length)
            read += len(out)
            return out

    monkeypatch.setattr(builtins, "open", lambda path, *a, **k: Counted(real(path, *a, **k)))
    found = {p.name: is_volume(p) for p in sorted(tmp_path.iterdir())}
    monkeypatch.undo()
    assert found == {
        "none.h5": False,
        "other.h5": False,
        "ptyrad.hdf5": True,
        "ptyrad_many.hdf5": True,
        "vol_inside.h5": False,
        "volume.h5": True,
    }
    assert 0 < read < 500_000 < big.nbytes
    assert not is_volume(sample_path("cuwo4"))


@pytest.mark.parametrize("name", ["scan.npy", "scan.emd", "scan.dm4"])
def test_formats_of_patterns_are_never_volumes(tmp_path, name):
    assert not is_volume(tmp_path / name)
