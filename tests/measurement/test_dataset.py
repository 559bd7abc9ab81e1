import dask.array as da
import h5py
import numpy as np
import pytest

from napari_mepdiff.measurement.checks import require_valid, validate
from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.measurement.detectors import (
    annular_dark_field,
    bright_field,
    centre_of_mass,
    find_disk,
    find_hot_pixels,
    pacbed,
    summary,
    virtual_image,
)
from napari_mepdiff.measurement.samples import open_sample

from .files import patterns

CALIBRATION = Calibration(pixel_size=0.08, energy=300, semi_angle=6.0, scan_step=(0.5, 0.5))


def _data(**fields):
    return FourDSTEM(patterns(), CALIBRATION, **fields)


def test_operations_are_lazy_and_right():
    raw = patterns()
    d = _data()
    assert np.array_equal(np.asarray(d.crop_scan(slice(1, 3), slice(0, 4)).data), raw[1:3, :4])
    assert np.array_equal(np.asarray(d.crop_detector(8).data), raw[:, :, 4:12, 2:10])
    assert np.array_equal(
        np.asarray(d.bin_detector(2).data),
        raw.reshape(4, 5, 8, 2, 6, 2).astype(np.uint32).sum(axis=(3, 5)),
    )
    assert d.bin_detector(2).calibration.pixel_size == pytest.approx(0.16)
    assert np.array_equal(
        np.asarray(d.bin_scan(2).data),
        raw[:, :4].reshape(2, 2, 2, 2, 16, 12).astype(int).sum((1, 3)),
    )
    assert d.bin_scan(2).calibration.scan_step == (1.0, 1.0)
    assert np.allclose(d.bin_scan(2).positions[0], [0.25, 0.25])
    assert np.array_equal(np.asarray(d.transpose_scan().data), raw.transpose(1, 0, 2, 3))
    assert np.array_equal(np.asarray(d.transpose_detector().data), raw.transpose(0, 1, 3, 2))
    flipped = np.asarray(d.flip_detector(y=True).data)
    assert np.array_equal(flipped[:, :, 8], raw[:, :, 8])  # DC stays
    assert np.array_equal(flipped[:, :, 9], raw[:, :, 7])
    assert np.array_equal(
        np.asarray(d.subtract_background(3).data), np.maximum(raw.astype(np.float32) - 3, 0)
    )
    assert isinstance(d.bin_detector(2).data, da.Array)
    assert d.crop_detector(8).bin_scan(2).provenance["steps"] == ["crop_detector(8)", "bin_scan(2)"]


def test_centring_moves_dc_and_masks_what_enters():
    raw = np.zeros((2, 2, 16, 16), np.uint16)
    raw[:, :, 6, 11] = 5
    d = FourDSTEM(raw).centred((6.2, 10.8))
    out = np.asarray(d.data)
    assert (out[:, :, 8, 8] == 5).all()
    assert d.mask[:2].sum() == 0
    assert d.mask[:, -3:].sum() == 0
    assert d.mask[5, 5] == 1


def test_positions_follow_a_crop():
    d = _data().crop_scan(slice(1, 3), slice(2, 5))
    assert np.allclose(d.scan_positions()[0], [0.5, 1.0])
    assert len(d.scan_positions()) == 6


def test_hot_pixels_are_found_and_repaired():
    raw = patterns(np.uint16, (8, 8, 32, 32))
    raw[:, :, 3, 20] += 400
    raw[:, :, 25, 9] += 400
    d = FourDSTEM(raw)
    hot = find_hot_pixels(d)
    assert set(zip(*np.nonzero(hot), strict=True)) == {(3, 20), (25, 9)}
    fixed = d.repair_hot_pixels(hot)
    assert np.asarray(fixed.data)[:, :, 3, 20].mean() == pytest.approx(1, abs=0.3)
    assert fixed.mask[3, 20] == 0
    assert fixed.mask.sum() == 32 * 32 - 2


def test_virtual_detectors():
    raw = patterns().astype(float)
    d = _data()
    assert np.allclose(pacbed(d), raw.mean(axis=(0, 1)))
    assert np.allclose(virtual_image(d, 0, 1e3), raw.sum(axis=(2, 3)))
    inner = bright_field(d)
    outer = annular_dark_field(d, 6.0, 1e3)
    assert np.allclose(inner + outer, raw.sum(axis=(2, 3)))
    seen = summary(d)
    assert np.allclose(seen.total, raw.sum(axis=(2, 3)))
    assert (seen.minimum, seen.maximum, seen.not_finite) == (raw.min(), raw.max(), 0)
    with pytest.raises(DataError, match="no detector pixel"):
        virtual_image(d, 900, 901)
    with pytest.raises(DataError, match="pixel size and the beam energy"):
        virtual_image(FourDSTEM(raw), 0, 1)


def test_centre_of_mass_in_mrad():
    raw = np.zeros((2, 3, 16, 16), np.float32)
    raw[..., 8, 8] = 1
    raw[1, 2, 8, 8], raw[1, 2, 10, 5] = 0, 7
    com = centre_of_mass(FourDSTEM(raw, CALIBRATION))
    assert np.allclose(com[0, 0], 0)
    assert np.allclose(com[1, 2], np.array([2, -3]) * CALIBRATION.pixel_mrad, rtol=1e-5)


def test_the_disk_is_found_in_a_real_pattern():
    data = open_sample("litao3")
    disk = find_disk(pacbed(data))
    assert disk.radius == pytest.approx(data.calibration.disk_radius, rel=0.02)
    assert disk.centre == pytest.approx((64, 64), abs=0.3)


def _codes(d):
    return {f.code for f in validate(d)}


def test_a_good_measurement_has_no_findings():
    assert validate(open_sample("srtio3")) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scan_step": (5.12, 5.12), "dose": None}, None),
        ({"scan_step": (5.12, 5.12)}, "dose"),
        ({"scan_step": (30.0, 30.0)}, "step-larger-than-probe"),
        ({"pixel_size": 0.39}, "disk-size"),
        ({"pixel_size": 0.0039}, "pattern-smaller-than-disk"),
        ({"semi_angle": 60.0}, "pattern-smaller-than-disk"),
        ({"energy": 3e5 / 1e3 * 10}, "energy-unit"),
        ({"scan_step": (0.001, 0.001)}, "step-unit"),
    ],
)
def test_wrong_calibration_is_named(change, code):
    d = open_sample("srtio3").calibrated(**{k: v for k, v in change.items() if k != "semi_angle"})
    if change.get("semi_angle") == 60.0:
        d = open_sample("srtio3").calibrated(semi_angle=60.0)
    assert code is None or code in _codes(d)
    if code is None:
        assert _codes(d) == set()


def test_wrong_patterns_are_named():
    base = patterns(np.float32)
    for change, code in ((np.nan, "nan"), (-4.0, "negative")):
        bad = base.copy()
        bad[1, 1, 3, 3] = change
        assert code in _codes(FourDSTEM(bad, CALIBRATION))
    bad = base.copy()
    bad[2, 3] = 0
    assert "zero-patterns" in _codes(FourDSTEM(bad, CALIBRATION))
    assert "empty" in _codes(FourDSTEM(base * 0, CALIBRATION))
    assert "off-centre" in _codes(FourDSTEM(np.roll(base, 3, axis=2), CALIBRATION))
    with pytest.raises(DataError, match=r"beam energy.*\n.*semi-angle"):
        require_valid(FourDSTEM(base, Calibration(pixel_size=0.08, scan_step=(0.5, 0.5))))


def test_impossible_datasets_are_refused():
    with pytest.raises(DataError, match="four axes"):
        FourDSTEM(np.zeros((3, 4, 5)))
    with pytest.raises(DataError, match="empty"):
        FourDSTEM(np.zeros((3, 0, 5, 5)))
    with pytest.raises(DataError, match="real numbers"):
        FourDSTEM(np.zeros((1, 1, 4, 4), complex))
    with pytest.raises(DataError, match="positions"):
        FourDSTEM(patterns(), positions=np.zeros((3, 2)))
    with pytest.raises(DataError, match="mask"):
        FourDSTEM(patterns(), mask=np.ones((2, 2), np.float32))
    with pytest.raises(MemoryError, match="GB"):
        FourDSTEM(
            da.zeros((500, 500, 128, 128), dtype=np.uint16, chunks=(1, 100, 128, 128))
        ).patterns(budget=10**9)


def test_ten_gigabytes_are_opened_by_reading_next_to_nothing(tmp_path, monkeypatch):
    """Unwritten blocks take no room on disk; the file is 10 GB to whoever reads it."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((560, 560, 128, 128))
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT16, space, layout)
        file["data"][0, 0] = 7
    from napari_mepdiff.measurement.formats import open_4dstem

    read = 0
    plain = h5py.Dataset.__getitem__

    def counted(self, *args, **options):
        nonlocal read
        found = plain(self, *args, **options)
        read += getattr(found, "nbytes", 0)
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    data = open_4dstem(path, hash_input=False)
    assert data.nbytes > 10e9
    assert data.pattern(0, 0)[0, 0] == 7
    assert 0 < read < 200e6  # a row of the scan at most
