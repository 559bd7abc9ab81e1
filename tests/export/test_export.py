import json
import os
import sys

import numpy as np
import pytest
import tifffile

from napari_mepdiff.base.extras import MissingExtra
from napari_mepdiff.export.volumes import format_of, load_volume, save_volume
from napari_mepdiff.specimen.volume import Volume

from ..needs import needs

SUFFIXES = [
    ".tif",
    ".h5",
    ".npy",
    pytest.param(".zarr", marks=needs("zarr", "ome_zarr")),
    pytest.param(".mrc", marks=needs("mrcfile")),
]


@pytest.fixture
def volume():
    array = np.random.default_rng(0).random((8, 10, 12)).astype(np.float32)
    return Volume(
        array,
        (1.6, 0.2, 0.25),
        (0.0, 0.4, 0.5),
        "rad",
        300.0,
        provenance={"solver": "lbfgs", "seed": 4},
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_comes_back_equal(volume, suffix, tmp_path):
    written = save_volume(volume, tmp_path / f"v{suffix}", provenance={"note": "x"})
    assert [p.name for p in written] == [f"v{suffix}", f"v{suffix}.json"]
    again = load_volume(written[0])
    assert np.array_equal(again.array, volume.array)
    assert again.voxel_size == pytest.approx(volume.voxel_size)
    assert again.origin == pytest.approx(volume.origin)
    assert (again.unit, again.energy) == ("rad", 300.0)
    sidecar = json.loads(written[1].read_text())
    assert sidecar["provenance"]["solver"] == "lbfgs"
    assert sidecar["provenance"]["note"] == "x"
    assert sidecar["voxel_size_unit"] == "Å"
    assert "napari-mepdiff" in sidecar["versions"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_in_another_unit(volume, suffix, tmp_path):
    save_volume(
        volume,
        tmp_path / f"v{suffix}",
        slices=slice(2, 5),
        y=slice(1, 4),
        x=slice(3, None),
        unit="V·Å",
    )
    part = load_volume(tmp_path / f"v{suffix}")
    assert part.shape == (3, 3, 9)
    assert part.unit == "V·Å"
    assert part.origin == pytest.approx((3.2, 0.6, 1.25))
    assert np.allclose(part.to_unit("rad").array, volume.array[2:5, 1:4, 3:], rtol=1e-5)


def test_tiff_is_calibrated_for_imagej(volume, tmp_path):
    save_volume(volume, tmp_path / "v.tif")
    with tifffile.TiffFile(tmp_path / "v.tif") as file:
        assert file.is_imagej
        meta = file.imagej_metadata
        assert (meta["unit"], meta["spacing"], meta["slices"]) == ("angstrom", 1.6, 8)
        assert file.series[0].axes == "ZYX"
        assert file.asarray().shape == (8, 10, 12)
        x = file.pages[0].tags["XResolution"].value
        assert x[0] / x[1] == pytest.approx(4.0)
    (tmp_path / "v.tif.json").unlink()
    assert load_volume(tmp_path / "v.tif").voxel_size == pytest.approx(volume.voxel_size)


@needs("mrcfile", "zarr", "ome_zarr")
def test_mrc_and_zarr_carry_their_scale(volume, tmp_path):
    import mrcfile
    import zarr

    save_volume(volume, tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert float(file.voxel_size.z) == pytest.approx(1.6)
        assert float(file.voxel_size.x) == pytest.approx(0.25)
    assert mrcfile.validate(tmp_path / "v.mrc")
    save_volume(volume, tmp_path / "v.zarr")
    ome = dict(zarr.open_group(str(tmp_path / "v.zarr"), mode="r").attrs)["ome"]
    image = ome["multiscales"][0]
    assert [(a["name"], a["unit"]) for a in image["axes"]] == [(n, "angstrom") for n in "zyx"]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx(
        list(volume.voxel_size)
    )


def test_nothing_is_overwritten_or_half_written(volume, tmp_path):
    path = tmp_path / "v.tif"
    save_volume(volume, path)
    with pytest.raises(FileExistsError, match="allow overwriting"):
        save_volume(volume, path)
    with pytest.raises(ValueError, match="cannot write"):
        save_volume(volume, tmp_path / "v.xyz")
    with pytest.raises(ValueError, match="empty"):
        save_volume(volume, tmp_path / "w.tif", slices=slice(9, 12))
    with pytest.raises(FileNotFoundError, match="folder"):
        save_volume(volume, tmp_path / "none" / "v.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.tif", "v.tif.json"]


def test_a_full_disk_leaves_the_old_export(volume, tmp_path, monkeypatch):
    path = tmp_path / "v.tif"
    save_volume(volume, path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_volume(volume, path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_volumes_are_refused(suffix, tmp_path):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read as a volume"):
        load_volume(path)
    with pytest.raises(FileNotFoundError):
        load_volume(tmp_path / f"none{suffix}")


@pytest.mark.parametrize(("suffix", "module"), [(".mrc", "mrcfile"), (".zarr", "ome_zarr")])
def test_a_format_that_cannot_be_written_is_known_before_the_work(suffix, module, monkeypatch):
    """Found out after an hour's run, the missing package took the volume with it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"Writing .* needs .*napari-mepdiff\[formats\]"):
        format_of(f"volume{suffix}")


def test_a_missing_package_is_not_called_a_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mrcfile", None)
    (tmp_path / "v.mrc").write_bytes(b"whatever")
    with pytest.raises(MissingExtra, match=r"Reading \.mrc files needs the package mrcfile"):
        load_volume(tmp_path / "v.mrc")


def test_an_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    volume, tmp_path, monkeypatch
):
    """An OME-Zarr export is a folder: who overwrites one on a failing drive keeps the old."""
    path = tmp_path / "v.zarr"
    save_volume(volume, path)
    original = os.replace

    def failing(source, target):
        if str(source).endswith(".partial"):
            raise OSError(5, "Input/output error")
        return original(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        save_volume(volume, path, overwrite=True)
    monkeypatch.undo()
    assert np.array_equal(load_volume(path).array, volume.array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.zarr", "v.zarr.json"]
