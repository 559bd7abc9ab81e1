"""Full disks, slow drives and damaged files end neither the process nor the truth of what is
said."""

import errno
import io
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from napari_mepdiff.base import files, hdf5, hdf5_writing
from napari_mepdiff.base.files import NoRoom, atomic
from napari_mepdiff.base.hdf5 import NoAnswer, guard_hdf5, is_hdf5, kind_of, quick_kind
from napari_mepdiff.base.hdf5_writing import write_hdf5
from napari_mepdiff.measurement import formats
from napari_mepdiff.measurement.formats.own import save
from napari_mepdiff.measurement.formats.ptyrad import read_ptyrad_result
from napari_mepdiff.measurement.samples import sample_path
from napari_mepdiff.specimen.volume import Volume

WRITERS = {
    "volume": """
        from napari_mepdiff.specimen.volume import Volume
        big = Volume(np.random.default_rng(0).random((8, 256, 256)))
        small = Volume(np.zeros((2, 4, 4)))
        def write(path, large): (big if large else small).save(path)
        def check(path): assert Volume.load(path).shape == (2, 4, 4)
    """,
    "measurement": """
        from napari_mepdiff.measurement.dataset import FourDSTEM
        from napari_mepdiff.measurement.formats import open_4dstem
        from napari_mepdiff.measurement.formats.own import save
        import dask.array as da
        def data(n):
            counts = np.random.default_rng(0).integers(0, 60000, (n, 16, 32, 32)).astype(np.uint16)
            return FourDSTEM(da.from_array(counts, chunks=(1, 16, 32, 32)))
        def write(path, large): save(data(64 if large else 2), path)
        def check(path): assert open_4dstem(path).data.compute().shape == (2, 16, 32, 32)
    """,
}

ATTEMPT = """
    import errno, gc, os, resource, sys
    from pathlib import Path
    import numpy as np
    folder = Path(sys.argv[1])
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    (folder / "out.h5").write_bytes(b"before")
    for _ in range(3):
        try:
            write(folder / "out.h5", True)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EFBIG), error
            print(str(error))
        else:
            raise SystemExit("nothing was said")
        assert [p.name for p in folder.iterdir()] == ["out.h5"], list(folder.iterdir())
        assert (folder / "out.h5").read_bytes() == b"before"
    gc.collect()
    write(folder / "out.h5", False)
    check(folder / "out.h5")
    print("alive")
"""


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting a small disk is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _attempt(writer: str, folder: Path, how: str) -> list[str]:
    code = textwrap.dedent("import numpy as np\n" + textwrap.dedent(WRITERS[writer]))
    result = subprocess.run(
        [sys.executable, "-c", code + textwrap.dedent(ATTEMPT), str(folder), how],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr or f"ended by signal {-result.returncode}"
    lines = result.stdout.splitlines()
    assert lines[-1] == "alive"
    return lines[:-1]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_said_and_the_process_goes_on(small_disk, writer):
    """It used to crash napari with everything in it, though the error had been caught."""
    for said in _attempt(writer, small_disk, "full"):
        assert said.startswith("the disk is full: ")
        assert "out.h5 was not written (" in said
        assert "choose another folder" in said


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_limit_on_the_size_of_files_is_said_and_the_process_goes_on(tmp_path, writer):
    """The same where an administrator limits the size of files."""
    for said in _attempt(writer, tmp_path, "limit"):
        assert said.startswith("the file would be larger than this disk or account allows: ")


class _Failing(io.FileIO):
    """A disk that is full after so many bytes."""

    left = 0

    def write(self, data):
        if len(data) > _Failing.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        _Failing.left -= len(data)
        return super().write(data)


def _disk_that_fails(monkeypatch):
    monkeypatch.setattr(
        hdf5_writing, "open", lambda p, m, buffering: _Failing(p, "w+"), raising=False
    )


@pytest.mark.parametrize("room", [0, 100, 5_000, 40_000, 300_000])
def test_wherever_the_disk_fills_what_was_written_reads_back_until_the_end(
    tmp_path, monkeypatch, room
):
    """HDF5 reads what it wrote, also after the failure; only then can it come to an end without a
    crash."""
    monkeypatch.setattr(_Failing, "left", room)
    _disk_that_fails(monkeypatch)
    array = np.random.default_rng(1).random((40, 100, 100))

    def write() -> None:
        with write_hdf5(tmp_path / "x.h5") as (file, _):
            for k in range(40):
                group = file.create_group(f"g{k}")
                group.attrs["k"] = k
                group.create_dataset("d", data=array[k], chunks=(10, 100), compression="gzip")
            file.flush()
            for k in range(40):
                assert file[f"g{k}"].attrs["k"] == k
                np.testing.assert_array_equal(file[f"g{k}/d"][...], array[k])

    with pytest.raises(NoRoom):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_long_write_ends_soon_after_the_disk_is_full(tmp_path, monkeypatch):
    """Hours of simulation must not be computed for a file that cannot be kept any more."""
    monkeypatch.setattr(_Failing, "left", 100_000)
    _disk_that_fails(monkeypatch)
    import dask.array as da

    from napari_mepdiff.measurement.dataset import FourDSTEM

    rows = []

    def made(block, block_info=None):
        rows.append(1)
        return np.random.default_rng(0).integers(0, 60000, block.shape).astype(np.uint16)

    lazy = da.zeros((600, 8, 64, 64), chunks=(1, 8, 64, 64), dtype=np.uint16).map_blocks(
        made, dtype=np.uint16, meta=np.empty((0,) * 4, np.uint16)
    )
    with pytest.raises(NoRoom):
        save(FourDSTEM(lazy), tmp_path / "x.h5", compression=0)
    assert len(rows) < 400  # HDF5 keeps some megabytes before it writes
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_passes_and_leaves_nothing(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"before")

    def write() -> None:
        with write_hdf5(tmp_path / "x.h5") as (file, _):
            file["a"] = np.arange(10)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write()
    assert (tmp_path / "x.h5").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_said_of_every_kind_of_file(tmp_path):
    """A TIFF, a checkpoint and a figure go the same way as HDF5."""

    def write(error: OSError) -> None:
        with atomic(tmp_path / "x.tif") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(NoRoom, match=r"the disk is full: .*x\.tif was not written"):
        write(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(PermissionError):
        write(PermissionError(errno.EACCES, "Permission denied"))
    assert list(tmp_path.iterdir()) == []
    assert files.no_room(ValueError("other"), tmp_path) is None


# ---- reading ------------------------------------------------------------------------------------
@pytest.fixture
def kinds(tmp_path):
    """One file of each kind."""
    Volume(np.zeros((2, 4, 4))).save(tmp_path / "volume.h5")
    small = formats.open_4dstem(sample_path("srtio3"))
    save(small.crop_scan(slice(0, 2), slice(0, 2)), tmp_path / "measurement.h5")
    with h5py.File(tmp_path / "ptyrad.h5", "w") as file:
        file["optimizable_tensors/objp"] = np.zeros((1, 2, 4, 4))
    with h5py.File(tmp_path / "other.h5", "w", userblock_size=512) as file:
        file["data"] = np.zeros((2, 2, 4, 4))
    (tmp_path / "none.h5").write_bytes(b"this is not HDF5 at all" * 100)
    (tmp_path / "empty.h5").write_bytes(b"")
    return tmp_path


def test_what_an_hdf5_file_holds_is_answered_in_one_place(kinds):
    found = {p.stem: kind_of(p) for p in kinds.iterdir()}
    assert found == {
        "volume": "volume", "measurement": "measurement", "ptyrad": "ptyrad", "other": "other",
        "none": None, "empty": None,
    }  # fmt: skip
    assert (
        kind_of(sample_path("cuwo4")) == "measurement"
    )  # written before files began with their mark
    assert is_hdf5(kinds / "other.h5")
    assert kind_of(kinds) is None  # a folder


def test_our_own_files_are_known_without_another_process(kinds, monkeypatch):
    """A file dropped on the window must not stop it for seconds."""
    monkeypatch.setattr(subprocess, "run", None)
    assert kind_of(kinds / "volume.h5") == "volume"
    assert kind_of(kinds / "measurement.h5") == "measurement"
    assert quick_kind(kinds / "other.h5") is None
    assert kind_of(kinds / "none.h5") is None


def test_a_file_that_was_gone_through_is_not_gone_through_again(kinds, monkeypatch):
    path = kinds / "other.h5"
    assert guard_hdf5(path) == "other"
    with monkeypatch.context() as change:
        change.setattr(subprocess, "run", None)
        assert guard_hdf5(path) == "other"
    path.write_bytes(path.read_bytes()[:1500])  # changed since: looked at again
    with pytest.raises(ValueError, match="damaged"):
        guard_hdf5(path)


def test_a_slow_drive_is_not_damage(kinds, monkeypatch):
    """A measurement on a network drive was said to be damaged, when only the network was slow."""
    slow = "import time; time.sleep(60)"
    monkeypatch.setattr(hdf5, "_PROBE", slow)
    start = {p.name: p.read_bytes() for p in kinds.iterdir()}
    for read in (
        lambda: guard_hdf5(kinds / "other.h5", 0.2),
        lambda: formats.open_4dstem(kinds / "other.h5"),
        lambda: Volume.load(kinds / "volume.h5"),
        lambda: read_ptyrad_result(kinds / "ptyrad.h5"),
    ):
        monkeypatch.setenv("MEPDIFF_READ_TIMEOUT", "0.2")
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.2 s: a slow or disconnected"):
            read()
    assert {p.name: p.read_bytes() for p in kinds.iterdir()} == start


def test_the_limit_grows_with_the_file_and_can_be_raised(monkeypatch, caplog):
    monkeypatch.delenv("MEPDIFF_READ_TIMEOUT", raising=False)
    assert hdf5._limit(0) == 20
    assert hdf5._limit(50_000_000_000) == 520
    monkeypatch.setenv("MEPDIFF_READ_TIMEOUT", "900")
    assert hdf5._limit(0) == 900
    monkeypatch.setenv("MEPDIFF_READ_TIMEOUT", "long")
    assert hdf5._limit(0) == 20
    assert "MEPDIFF_READ_TIMEOUT" in caplog.text
