"""Telling files apart by the names at their root, without the HDF5 library."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from napari_mepdiff.base.hdf5_root import root_holds


@pytest.mark.parametrize("block", [0, 512, 2048])
@pytest.mark.parametrize("libver", [None, "latest", ("v108", "v108"), ("v110", "v110")], ids=str)
@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("count", [5, 12, 60, 900])
def test_names_at_the_root_are_found_wherever_they_were_written(
    tmp_path, libver, order, count, block
):
    """A PtyRAD result is a volume, in whatever order and form its arrays were written."""
    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=block, track_order=order) as file:
        for n in range(count):
            file[f"entry_{n}"] = np.zeros(3)
        file["optimizable_tensors/objp"] = np.zeros(300)
    assert root_holds(path, "optimizable_tensors")
    assert root_holds(path, "entry_3")
    assert not root_holds(path, "objp")  # below the root
    assert not root_holds(path, "optimizable")


def test_a_damaged_index_of_names_ends_in_an_answer(tmp_path):
    """Any byte of the header, of the heap of names and of its table altered: no exception."""
    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for n in range(60):
            file[f"entry_{n}"] = np.zeros(1)
        file["optimizable_tensors/objp"] = np.zeros(10)
    whole = path.read_bytes()
    assert root_holds(path, "optimizable_tensors")
    for start in (0, whole.index(b"OHDR"), whole.index(b"FRHP"), whole.index(b"FHIB")):
        for n in range(start, start + 150):
            altered = bytearray(whole)
            altered[n] ^= 0xFF
            path.write_bytes(altered)
            root_holds(path, "optimizable_tensors")


def test_a_damaged_file_holds_nothing_and_is_not_read_for_long(tmp_path):
    """Each byte of the head altered, and the file cut anywhere: an answer, never an exception."""
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["optimizable_tensors/objp"] = np.zeros(10)
    whole = path.read_bytes()
    for n in range(0, 160):
        altered = bytearray(whole)
        altered[n] ^= 0xFF
        path.write_bytes(altered)
        root_holds(path, "optimizable_tensors")
        path.write_bytes(whole[:n])
        assert not root_holds(path, "optimizable_tensors")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\xff" * 200)
    assert not root_holds(path, "optimizable_tensors")
