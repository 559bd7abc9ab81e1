"""What protects our own files where the HDF5 library sees no damage: checksums and a seal.

The damaged files of test_corruption.py are mostly refused by the library itself. Here the damage is
such that it notices nothing, and each protection is also switched off: then wrong numbers come
through without a word, so that it is the protection that refuses them.
"""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
from napari_mepdiff.measurement.formats import open_4dstem, own
from napari_mepdiff.measurement.formats.common import ReadError

from .files import SHAPE, patterns


def saved(path: Path) -> Path:
    """Without compression, which would notice some of the damage by itself."""
    counts = patterns()
    counts[0, 0, 0, :4] = 0
    data = FourDSTEM(
        counts,
        Calibration(pixel_size=0.08, energy=300, semi_angle=21.4, scan_step=(0.5, 0.5)),
        positions=np.random.default_rng(0).uniform(1, 3, (SHAPE[0] * SHAPE[1], 2)),
    )
    own.save(data, path, compression=0)
    return path


def place(path: Path, name: str) -> int:
    """Where the values of an array begin in its file."""
    with h5py.File(path, "r") as file:
        dataset = file[name]
        chunked = dataset.chunks is not None
        at = dataset.id.get_chunk_info(0).byte_offset if chunked else dataset.id.get_offset()
    return int(at)


def overwrite(path: Path, at: int, old: bytes, new: bytes) -> None:
    whole = bytearray(path.read_bytes())
    assert whole[at : at + len(old)] == old
    whole[at : at + len(old)] = new
    path.write_bytes(whole)


def a_count(path: Path) -> None:
    """0 becomes 65535: the library's own checksum, Fletcher-32, counts modulo 65535."""
    overwrite(path, place(path, "patterns"), b"\0\0", b"\xff\xff")


def the_pixel_size(path: Path) -> None:
    """One digit of the calibration."""
    at = path.read_bytes().index(b"0.08", place(path, "header"))
    overwrite(path, at, b"0.08", b"0.09")


def a_position(path: Path) -> None:
    """The lowest bit of an exponent."""
    at = place(path, "positions") + 6
    byte = path.read_bytes()[at : at + 1]
    overwrite(path, at, byte, bytes([byte[0] ^ 0x10]))


def without_checksums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(own, "_checked", lambda stored, sums, name: da.from_array(stored, name=False))


def without_seal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(own, "_seal", lambda file: own._plain_text(file.attrs["seal"]))


def numbers(path: Path) -> tuple[np.ndarray, ...]:
    data = open_4dstem(path, hash_input=False)
    return np.asarray(data.data), np.array(data.calibration.pixel_size), data.positions


@pytest.mark.parametrize(
    ("damage", "switch_off", "words"),
    [
        (a_count, without_checksums, r"1 patterns are damaged, the first at .*\(0, 0\)"),
        (the_pixel_size, without_seal, "its seal does not fit"),
        (a_position, without_seal, "its seal does not fit"),
    ],
)
def test_damage_that_hdf5_does_not_see_is_refused_by_our_own_check(
    tmp_path, monkeypatch, damage, switch_off, words
):
    """Wrong counts, scales or places would be reconstructed."""
    path = saved(tmp_path / "data.h5")
    before = numbers(path)
    damage(path)
    with pytest.raises(ReadError, match=words):
        numbers(path)
    switch_off(monkeypatch)
    after = numbers(path)  # nothing else refuses it
    assert sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)) == 1
