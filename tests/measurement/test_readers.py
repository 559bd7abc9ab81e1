import subprocess
import sys

import numpy as np
import pytest

from napari_mepdiff.base.extras import MissingExtra
from napari_mepdiff.measurement.formats import ReadError, open_4dstem
from napari_mepdiff.measurement.formats.ptyrad import read_ptyrad_result

from ..needs import needs
from .files import FORMATS, KINDS, expected, patterns


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def _write(kind, folder):
    name, writer, options, shape = FORMATS[kind]
    writer(folder / name)
    return folder / name, options, shape


def test_every_format_gives_the_patterns_back(kind, tmp_path):
    path, options, shape = _write(kind, tmp_path)
    data = open_4dstem(path, **options)
    assert data.shape == shape
    assert np.array_equal(np.asarray(data.data), expected(kind))
    assert data.provenance["source"]["file"] == path.name
    assert data.provenance["source"]["hash"].startswith("sha256")


@needs("emdfile", "rsciio")
def test_calibration_comes_along(tmp_path):
    own = open_4dstem(_write("own", tmp_path)[0])
    assert own.calibration.energy == 300
    assert own.optics.overfocus == 200
    for kind in ("py4dstem", "hspy", "dm4"):
        c = open_4dstem(_write(kind, tmp_path)[0]).calibration
        if kind == "dm4":
            assert c.scan_step == pytest.approx((5.0, 5.0))
            assert c.pixel_size == pytest.approx(0.008)
            assert c.energy == pytest.approx(200)
        else:
            assert c.scan_step == pytest.approx((0.5, 0.5))
            assert c.pixel_size == pytest.approx(0.08)
    given = open_4dstem(
        _write("npy", tmp_path)[0], calibration={"energy": 80, "scan_step": (0.3, 0.4)}
    )
    assert given.calibration.energy == 80


@needs("rsciio")
def test_a_name_that_claims_another_format_is_an_error(tmp_path):
    for kind, name in (
        ("npy", "data.h5"),
        ("hdf5", "data.npy"),
        ("mat5", "data.h5"),
        ("npy", "data.dm4"),
        ("blo", "data.mib"),
        ("own", "data.raw"),
    ):
        path = tmp_path / name
        FORMATS[kind][1](tmp_path / FORMATS[kind][0])
        (tmp_path / FORMATS[kind][0]).rename(path)
        with pytest.raises(ReadError, match="named like"):
            open_4dstem(path)
        path.unlink()


def test_lists_of_patterns_need_a_scan_shape(tmp_path):
    path, _, _ = _write("ptyrad", tmp_path)
    with pytest.raises(ReadError, match="20 patterns"):
        open_4dstem(path)
    with pytest.raises(ReadError, match="not 3 × 4"):
        open_4dstem(path, scan_shape=(3, 4))
    np.save(tmp_path / "kyx.npy", patterns().reshape(20, 16, 12).transpose(1, 2, 0))
    data = open_4dstem(tmp_path / "kyx.npy", axes="uvn", scan_shape=(4, 5))
    assert np.array_equal(np.asarray(data.data), patterns())


def test_an_ambiguous_file_lists_its_arrays(tmp_path):
    import h5py

    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = patterns(), patterns()
    with pytest.raises(ReadError, match="a, b"):
        open_4dstem(tmp_path / "two.h5")
    assert open_4dstem(tmp_path / "two.h5", dataset="b").shape == patterns().shape


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5)), "shape"),
        (np.zeros((2, 2, 4, 4), complex), "complex"),
        (np.full((1, 1, 2, 2), "a"), "type"),
        (np.zeros((0, 2, 4, 4)), "shape"),
    ],
)
def test_arrays_that_are_no_4dstem_data(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ReadError, match=message):
        open_4dstem(tmp_path / "x.npy")


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_4dstem(tmp_path / "nothing.h5")
    (tmp_path / "x.xyz").write_bytes(b"hello")
    with pytest.raises(ReadError, match="neither name nor content"):
        open_4dstem(tmp_path / "x.xyz")
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(ReadError, match="does not begin like"):
        open_4dstem(tmp_path / "empty.npy")


@needs("zarr")
def test_a_missing_chunk_is_an_error_not_zeros(tmp_path):
    path, _, _ = _write("zarr", tmp_path)
    next(p for p in path.rglob("*") if p.is_file() and "json" not in p.name).unlink()
    with pytest.raises(ReadError, match="missing"):
        open_4dstem(path)


def test_ptyrad_results_are_volumes(tmp_path):
    import h5py

    path = tmp_path / "model_iter0020.hdf5"
    phase = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["optimizable_tensors/objp"] = phase
        file["optimizable_tensors/probe"] = np.ones((1, 8, 8), np.complex64)
        file["optimizable_tensors/slice_thickness"] = np.float32(2.0)
        file["model_attributes/dx"] = np.float32(0.15)
        file["model_attributes/slice_thickness"] = np.float32(2.0)
        file["model_attributes/omode_occu"] = np.ones(1, np.float32)
        file["model_attributes/lambd"] = "__NONE__"
    volume = read_ptyrad_result(path)
    assert np.array_equal(volume.array, phase[0])
    assert volume.voxel_size == pytest.approx((2.0, 0.15, 0.15))
    with pytest.raises(ReadError, match="open it as a volume"):
        open_4dstem(path)
    from napari_mepdiff.measurement.formats import load_probe

    assert load_probe(path).shape == (1, 8, 8)


def test_own_layout_keeps_everything(tmp_path):
    from napari_mepdiff.measurement.formats.own import save
    from napari_mepdiff.measurement.samples import open_sample

    sample = open_sample("cuwo4_low_dose")
    save(sample, tmp_path / "copy.h5")
    copy = open_4dstem(tmp_path / "copy.h5")
    assert np.array_equal(np.asarray(copy.data), np.asarray(sample.data))
    assert np.array_equal(copy.truth.array, sample.truth.array)
    assert np.array_equal(copy.truth_atoms["positions"], sample.truth_atoms["positions"])
    for name in ("calibration", "optics", "boundary", "canvas", "band_limit"):
        assert getattr(copy, name) == getattr(sample, name)
    assert np.array_equal(copy.positions, sample.positions)
    assert copy.provenance["conditions"] == sample.provenance["conditions"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    import dask.array as da

    from napari_mepdiff.measurement.dataset import FourDSTEM
    from napari_mepdiff.measurement.formats.own import save

    path = tmp_path / "data.h5"
    FORMATS["own"][1](path)
    before = path.read_bytes()

    def broken(block):
        raise OSError("No space left on device")

    bad = da.zeros((4, 5, 16, 12), chunks=(1, 5, 16, 12)).map_blocks(
        broken, dtype=float, meta=np.zeros((0,) * 4)
    )
    with pytest.raises(OSError, match="No space"):
        save(FourDSTEM(bad), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["data.h5"]


@pytest.mark.parametrize(
    ("name", "module"), [("scan.dm4", "rsciio.digitalmicrograph"), ("scan.zarr", "zarr")]
)
def test_a_format_whose_package_is_missing_is_not_called_damaged(
    name, module, tmp_path, monkeypatch
):
    """Called damaged, a good recording would be taken again; the remedy is one line."""
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / name
    if path.suffix == ".zarr":
        path.mkdir()
        (path / "zarr.json").write_text("{}")
    else:
        path.write_bytes(b"\0\0\0\x04" + bytes(2000))
    with pytest.raises(MissingExtra, match=r"Reading .* files|stores needs .*\[formats\]"):
        open_4dstem(path)


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (np.float64(300.0), "np.float64(300.0)"),
        (np.float64(1e-5), "np.float64(1e-05)"),
        (np.float32(0.1), "np.float32(0.1)"),
        (np.int64(-3), "np.int64(-3)"),
        (np.uint8(7), "np.uint8(7)"),
        (np.bool_(True), "np.True_"),
        (np.bytes_(b"mepdiff-4dstem"), "np.bytes_(b'mepdiff-4dstem')"),
        (np.str_("a'b"), 'np.str_("a\'b")'),
        (np.array([1.5, 2.0]), "[1.5, 2.0]"),
        ("text", "'text'"),
    ],
)
def test_the_seal_is_the_same_whatever_the_version_of_numpy(value, spelled):
    """A measurement saved with numpy 2 was "damaged" to everyone who still had numpy 1."""
    from napari_mepdiff.measurement.formats.own import _spelled

    assert _spelled(value) == spelled
    if np.__version__.startswith("2.") and not isinstance(value, np.ndarray):
        assert spelled == repr(value)  # files that were sealed before stay whole


# writes one array compressed as detectors do, in a process of its own: a filter once loaded stays
_COMPRESSED = """
import sys, h5py, hdf5plugin, numpy as np
kind = {"bitshuffle": hdf5plugin.Bitshuffle(), "lz4": hdf5plugin.LZ4(), "blosc": hdf5plugin.Blosc()}
with h5py.File(sys.argv[1], "w") as file:
    file.create_dataset("data", data=np.load(sys.argv[2]), chunks=True, **kind[sys.argv[3]])
"""
_READ = """
import sys
import numpy as np
if sys.argv[3] == "without":
    sys.modules["hdf5plugin"] = None
from napari_mepdiff.measurement.formats import open_4dstem
assert np.array_equal(np.asarray(open_4dstem(sys.argv[1]).data), np.load(sys.argv[2]))
"""


def _python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


@needs("hdf5plugin")
@pytest.mark.parametrize("method", ["bitshuffle", "lz4", "blosc"])
def test_what_a_detector_compressed_is_read(method, tmp_path):
    """Files of Arina, Eiger and others could not be opened, although hdf5plugin was installed."""
    values = np.arange(4 * 5 * 16 * 16, dtype=np.uint16).reshape(4, 5, 16, 16)
    np.save(tmp_path / "values.npy", values)
    path = tmp_path / "detector.h5"
    written = _python(_COMPRESSED, path, tmp_path / "values.npy", method)
    assert written.returncode == 0, written.stderr
    read = _python(_READ, path, tmp_path / "values.npy", "with")
    assert read.returncode == 0, read.stderr
    missing = _python(_READ, path, tmp_path / "values.npy", "without")
    assert missing.returncode != 0
    assert "hdf5plugin" in missing.stderr
    assert 'pip install "napari-mepdiff[formats]"' in missing.stderr
