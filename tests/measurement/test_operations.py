"""Operations on a dataset against plain numpy: one by one, and any of them after any other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_mepdiff.measurement.checks import validate
from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.measurement.detectors import summary
from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.measurement.formats.own import save
from napari_mepdiff.measurement.preparation import Preparation
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.specimen.volume import Volume

KNOWN = Calibration(pixel_size=0.08, energy=300, semi_angle=6.0, scan_step=(0.5, 0.4))


def counts(shape=(5, 6, 16, 18), dtype="u2", seed=0) -> np.ndarray:
    """A bright disk with counting noise."""
    y, x = np.mgrid[: shape[2], : shape[3]]
    lit = np.hypot(y - shape[2] // 2, x - shape[3] // 2) < 4
    return np.random.default_rng(seed).poisson(1 + 30 * lit, shape).astype(dtype)


# ---- any sequence -------------------------------------------------------------------------------
def _crop(a, n):
    y, x = (slice(k // 2 - n // 2, k // 2 - n // 2 + n) for k in a.shape[2:])
    return a[:, :, y, x]


def _bin(a, n, axes):
    for axis in axes:
        a = np.moveaxis(a, axis, 0)
        m = len(a) // n
        a = np.moveaxis(a[: m * n].reshape(m, n, *a.shape[1:]).sum(axis=1), 0, axis)
    return a


def _mirror(a, axis):
    n = a.shape[axis]
    return np.take(a, (2 * (n // 2) - np.arange(n)) % n, axis=axis)


def _centre(a, where):
    out = np.zeros_like(a)
    dy, dx = (n // 2 - w for n, w in zip(a.shape[2:], where, strict=True))
    ky, kx = a.shape[2:]
    out[:, :, max(0, dy) : ky + min(0, dy), max(0, dx) : kx + min(0, dx)] = a[
        :, :, max(0, -dy) : ky - max(0, dy), max(0, -dx) : kx - max(0, dx)
    ]
    return out


Step = tuple[Callable[[FourDSTEM], FourDSTEM], Callable[[np.ndarray], np.ndarray]]


def some_step(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    """An operation that fits the shape, and its numpy reference."""
    ny, nx, ky, kx = shape
    smallest = min(ky, kx)
    size = int(rng.integers(max(4, smallest // 2), smallest + 1))
    where = (ky // 2 + int(rng.integers(-2, 3)), kx // 2 + int(rng.integers(-2, 3)))
    top, left = int(rng.integers(0, max(1, ny // 2))), int(rng.integers(0, max(1, nx // 2)))
    dark = rng.random((ky, kx)).astype(np.float32)
    fold = 2 if smallest >= 12 else 1
    group = 2 if min(ny, nx) >= 4 else 1
    steps: list[Step] = [
        (lambda d: d.crop_detector(size), lambda a: _crop(a, size)),
        (lambda d: d.bin_detector(fold), lambda a: _bin(a, fold, (2, 3))),
        (lambda d: d.bin_scan(group), lambda a: _bin(a, group, (0, 1))),
        (lambda d: d.crop_scan(slice(top, None), slice(left, None)), lambda a: a[top:, left:]),
        (lambda d: d.flip_detector(True, False), lambda a: _mirror(a, 2)),
        (lambda d: d.flip_detector(False, True), lambda a: _mirror(a, 3)),
        (lambda d: d.transpose_detector(), lambda a: a.transpose(0, 1, 3, 2)),
        (lambda d: d.transpose_scan(), lambda a: a.transpose(1, 0, 2, 3)),
        (lambda d: d.centred(where), lambda a: _centre(a, where)),
        (lambda d: d.subtract_background(dark), lambda a: np.maximum(a.astype("f4") - dark, 0)),
        (lambda d: d.to_electrons(2.0), lambda a: a.astype("f4") / np.float32(2)),
        (lambda d: d.calibrated(rotation=5.0), lambda a: a),
    ]
    return steps[int(rng.integers(len(steps)))]


@pytest.mark.parametrize("seed", range(40))
def test_any_sequence_of_operations_can_be_read_saved_and_reopened(seed, tmp_path):
    """Centring alone used to leave data that no run could read and that reopened as damaged."""
    rng = np.random.default_rng(seed)
    reference = counts(seed=seed)
    data = FourDSTEM(reference, KNOWN)
    if seed % 2:  # as it comes from a file, in small blocks
        data = FourDSTEM(data.data.rechunk((2, 3, 16, 18)), KNOWN)
    for _ in range(int(rng.integers(1, 6))):
        ours, numpys = some_step(rng, data.shape)
        data, reference = ours(data), numpys(reference)
        assert all(len(parts) == 1 for parts in data.data.chunks[2:])
    assert data.shape == reference.shape
    np.testing.assert_allclose(np.asarray(data.data), reference, rtol=1e-6)
    np.testing.assert_allclose(data.pattern(0, 0), reference[0, 0], rtol=1e-6)
    flat = reference.reshape(-1, *reference.shape[2:])
    np.testing.assert_allclose(data.patterns(), flat, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(data.loaded().data), reference, rtol=1e-6)
    np.testing.assert_allclose(summary(data).pacbed, flat.mean(axis=0), rtol=1e-5)
    validate(data)
    save(data, tmp_path / "kept.h5")
    again = open_4dstem(tmp_path / "kept.h5")
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(data.data))
    np.testing.assert_allclose(again.scan_positions(), data.scan_positions())
    assert again.calibration == data.calibration
    validate(again)


def test_what_centring_advises_can_be_done(tmp_path):
    """The advice *centre the patterns* must lead to data that a reconstruction takes."""
    data = open_sample("srtio3").crop_scan(slice(0, 4), slice(0, 4))
    moved = FourDSTEM(np.roll(np.asarray(data.data), (4, -3), (2, 3)), data.calibration)
    assert "off-centre" in {f.code for f in validate(moved)}
    centred = Preparation(centre_y=68, centre_x=61).apply(moved)
    assert "off-centre" not in {f.code for f in validate(centred)}
    assert centred.patterns().shape == (16, 128, 128)


# ---- one by one ---------------------------------------------------------------------------------
def _with_truth(boundary: str) -> FourDSTEM:
    truth = Volume(np.zeros((2, 30, 30), np.float32), (1.6, 0.8, 0.7), energy=300.0)
    return FourDSTEM(
        counts(),
        KNOWN,
        boundary=boundary,
        canvas=(30, 30),
        truth=truth,
        truth_atoms={"numbers": np.array([8]), "positions": np.zeros((1, 3))},
    )


def test_a_truth_that_no_longer_fits_goes():
    """A crop of an extended scan must not be judged against the specimen of the whole one."""
    extended, periodic = _with_truth("extended"), _with_truth("periodic")
    for change in (
        lambda d: d.crop_scan(slice(1, 4)),
        lambda d: d.bin_scan(2),
        lambda d: d.crop_scan(slice(None), slice(0, 6, 2)),
    ):
        assert change(extended).truth is None
        assert change(extended).truth_atoms is None
        assert change(periodic).truth is periodic.truth
    whole = extended.crop_scan(slice(0, 5), slice(0, 6))
    assert whole.truth is extended.truth
    assert extended.bin_scan(1).truth is extended.truth
    for d in (extended, periodic):
        assert d.transpose_scan().truth is None
        assert d.crop_detector(8).truth is None
        assert d.crop_detector(8).truth_atoms is None
    with pytest.raises(DataError, match="nothing is left"):
        extended.crop_scan(slice(7, None))


@pytest.mark.parametrize("rotation", [0.0, 23.0])
def test_swapped_scan_axes_mean_the_same_for_a_raster_and_for_its_stored_positions(rotation):
    """Whether a file wrote its raster down or not must not change where the probe was."""
    raster = FourDSTEM(counts(), KNOWN).calibrated(rotation=rotation)
    stored = FourDSTEM(counts(), raster.calibration, positions=raster.scan_positions())
    a, b = raster.transpose_scan(), stored.transpose_scan()
    np.testing.assert_allclose(a.scan_positions(), b.scan_positions(), atol=1e-12)
    np.testing.assert_array_equal(np.asarray(a.data), np.asarray(b.data))
    assert a.calibration.scan_step == b.calibration.scan_step == (0.4, 0.5)
    back = b.transpose_scan()
    np.testing.assert_allclose(back.scan_positions(), stored.scan_positions(), atol=1e-12)
    # by hand, unturned: the pattern at [i, j] of the swapped scan lies i columns to the right …
    if rotation == 0:
        expected = [(i * 0.4, j * 0.5) for i in range(6) for j in range(5)]
        np.testing.assert_allclose(b.scan_positions(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "dtype", ["u1", "u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8", ">u2"]
)
def test_sums_hold_whatever_the_type_of_the_counts(dtype):
    """Binned 64-bit counts overflowed to 0."""
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    top = 200 if size == 1 else 2000 if kind == "f" and size == 2 else 30000
    if kind in "ui" and size >= 4:
        top = 2 ** (8 * size - 4)
    a = (np.random.default_rng(0).random((4, 4, 8, 8)) * top).astype(dtype)
    exact = a.astype(object if kind in "ui" else np.float64)
    for binned, axes in (
        (FourDSTEM(a).bin_detector(2), (2, 3)),
        (FourDSTEM(a).bin_scan(2), (0, 1)),
    ):
        wanted = _bin(exact, 2, axes)
        got = np.asarray(binned.data)
        if kind in "ui":
            assert (got.astype(object) == wanted).all()
        else:
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_every_other_position_has_twice_the_step():
    d = FourDSTEM(counts(), KNOWN).crop_scan(slice(0, 5, 2), slice(1, None))
    assert d.calibration.scan_step == (1.0, 0.4)
    np.testing.assert_allclose(d.scan_positions().reshape(3, 5, 2)[1, 0], [1.0, 0.4])


# ---- positions that a file holds ----------------------------------------------------------------
def _scattered(n: int = 30) -> np.ndarray:
    return np.random.default_rng(5).random((n, 2)) * 9 + 2


def test_a_new_calibration_keeps_the_positions_of_the_file():
    """`--step` and `--scan-rotation` replaced 400 measured positions by a raster, silently."""
    stored = FourDSTEM(counts(), KNOWN, positions=_scattered())
    same = stored.calibrated(energy=200, scan_step=(0.5, 0.4), rotation=0.0)
    assert same.positions is stored.positions
    assert same.provenance == stored.provenance
    centre = stored.positions.mean(axis=0)
    turned = stored.calibrated(rotation=90.0)
    # +x turned towards +y: (y, x) → (x, −y) about the centre
    rel = stored.positions - centre
    np.testing.assert_allclose(
        turned.positions - centre, np.stack([rel[:, 1], -rel[:, 0]], axis=1), atol=1e-12
    )
    wide = stored.calibrated(scan_step=(0.5, 0.8))
    np.testing.assert_allclose(wide.positions - centre, rel * [1, 2], atol=1e-12)
    assert "turned by 90°" in turned.provenance["steps"][-1]
    assert "stretched by 1 (y) and 2 (x)" in wide.provenance["steps"][-1]
    back = turned.calibrated(rotation=0.0)
    np.testing.assert_allclose(back.positions, stored.positions, atol=1e-12)


def test_a_stored_raster_moves_as_the_raster_does():
    stored = FourDSTEM(
        counts(), KNOWN, positions=Raster(shape=(5, 6), step=KNOWN.scan_step).positions()
    )
    moved = stored.calibrated(rotation=12.0).calibrated(scan_step=(0.7, 0.3), rotation=-31.0)
    raster = Raster(shape=(5, 6), step=(0.7, 0.3), rotation=-31.0).positions()
    np.testing.assert_allclose(
        moved.positions - moved.positions.mean(axis=0), raster - raster.mean(axis=0), atol=1e-12
    )


def test_a_step_that_cannot_be_compared_is_refused(tmp_path):
    without = KNOWN.model_copy(update={"scan_step": None})
    stored = FourDSTEM(counts(), without, positions=_scattered())
    with pytest.raises(DataError, match="a position for every pattern"):
        stored.calibrated(scan_step=(0.5, 0.5))
    with pytest.raises(DataError, match="a position for every pattern"):
        Preparation(scan_step_y=0.5).apply(stored)
    # the same by the door that the command line takes
    save(stored, tmp_path / "scattered.h5")
    path = tmp_path / "scattered.h5"
    np.testing.assert_array_equal(
        open_4dstem(path, calibration={"rotation": 0.0}).positions, stored.positions
    )
    turned = open_4dstem(path, calibration={"rotation": 3.0})
    np.testing.assert_allclose(turned.positions, stored.calibrated(rotation=3.0).positions)
    assert "turned by 3°" in turned.provenance["source"]["positions"]
    assert "steps" not in turned.provenance
