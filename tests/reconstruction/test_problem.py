"""From a measurement to a problem: what is assumed, what is read, what is left out."""

from __future__ import annotations

import gc
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch

from napari_mepdiff.evaluation.compare import patterns_at
from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.measurement.samples import NAMES, open_sample
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.physics.scan import Windows
from napari_mepdiff.reconstruction.assumptions import electrons_per_pattern, slicing
from napari_mepdiff.reconstruction.frame import RefineInfo
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.specimen.volume import Volume

OPTICS = Optics(energy=300, semi_angle=15, overfocus=60, C30=0)
KNOWN = Calibration(pixel_size=1 / 6.4, energy=300, semi_angle=15, scan_step=(0.6, 0.5))


def measurement(scan=(5, 6), dtype="u2", **fields) -> FourDSTEM:
    """A bright disk with counting noise; no reconstruction is made of it."""
    y, x = np.mgrid[:32, :32]
    lit = np.hypot(y - 16, x - 16) * KNOWN.pixel_mrad < 15
    counts = np.random.default_rng(0).poisson(0.5 + 60 * lit, (*scan, 32, 32)).astype(dtype)
    return FourDSTEM(counts, **{"calibration": KNOWN, "optics": OPTICS, **fields})


class Counter:
    """An array that says how often each of its patterns was read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, 4
        self.reads = np.zeros(values.shape[:2], int)

    def __getitem__(self, key):
        self.reads[key[:2]] += 1
        return self.values[key]


def counted(scan=(5, 6)) -> tuple[Counter, FourDSTEM]:
    source = Counter(np.asarray(measurement(scan).data))
    lazy = da.from_array(source, chunks=(1, scan[1], 32, 32), name=False)
    return source, FourDSTEM(lazy, KNOWN, OPTICS)


# ---- no leak from the truth ---------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_ground_truth_has_no_part_in_a_problem(name):
    """With a truth in the file, users got other slices, thickness and electrons than without."""
    data = open_sample(name).crop_scan(slice(0, 3), slice(0, 3))
    whole = replace(data, truth=open_sample(name).truth, provenance={"electrons_per_pattern": 7.0})
    bare = replace(whole, truth=None, truth_atoms=None, provenance={})
    with_truth, without = Problem.from_data(whole), Problem.from_data(bare)
    assert with_truth.shape == without.shape
    assert with_truth.slice_thickness == without.slice_thickness == (1.6,) * 8
    assert with_truth.electrons == without.electrons
    np.testing.assert_array_equal(with_truth.probe.numpy(), without.probe.numpy())
    np.testing.assert_array_equal(with_truth.positions, without.positions)
    np.testing.assert_array_equal(with_truth.patterns, without.patterns)
    assert with_truth.voxel_size == without.voxel_size
    assert with_truth.origin == without.origin
    assert with_truth.band_limit == without.band_limit


def test_a_truth_of_other_slices_changes_nothing():
    truth = Volume(np.zeros((5, 40, 40), np.float32), (3.0, 0.2, 0.2), energy=300.0)
    plain, told = Problem.from_data(measurement()), Problem.from_data(measurement(truth=truth))
    assert plain.shape == told.shape
    assert plain.slice_thickness == told.slice_thickness == (1.6,) * 8


def test_slices_follow_from_what_a_microscopist_knows():
    def of(thickness=None, **asked):
        return slicing(KNOWN.model_copy(update={"thickness": thickness}), **asked)

    assert of() == (1.6,) * 8
    assert of(slices=3) == (1.6,) * 3
    assert of(slice_thickness=2.0) == (2.0,) * 8
    assert of(slice_thickness=[1.0, 2.0]) == (1.0, 2.0)
    assert of(16.0) == pytest.approx((1.6,) * 10)
    assert of(16.0, slices=4) == (4.0,) * 4
    assert of(16.0, slice_thickness=2.0) == (2.0,) * 8
    assert of(0.3) == pytest.approx((0.3,))
    for bad in ({"slices": 0}, {"slices": 3, "slice_thickness": [1, 2]}, {"slice_thickness": -1.0}):
        with pytest.raises(DataError, match="do not fit together"):
            of(**bad)


def test_electrons_come_from_the_patterns_or_from_a_dose_that_agrees():
    data = measurement()
    seen = data.reading.summary()
    mean = float(seen.total.mean())
    assert electrons_per_pattern(data, seen) == mean
    right, wrong = (data.calibrated(dose=f * mean / 0.3) for f in (1.004, 1.3))
    assert electrons_per_pattern(right, seen) == pytest.approx(1.004 * mean)
    assert electrons_per_pattern(wrong, seen) == mean
    # masked pixels are not dark: their neighbours say how bright they were
    mask = np.ones((32, 32), np.float32)
    mask[:, 15:17] = 0
    counts = np.asarray(data.data).copy()
    counts[..., 15:17] = 0
    gap = FourDSTEM(counts, KNOWN, OPTICS, mask=mask)
    assert electrons_per_pattern(gap, gap.reading.summary()) == pytest.approx(mean, rel=0.02)


# ---- read once, kept once -----------------------------------------------------------------------
def test_every_pattern_is_read_once_before_a_run():
    """Patterns were gone through four to five times, and stood in memory two to four times."""
    source, data = counted()
    problem = Problem.from_data(data)
    assert (source.reads == 1).all()
    problem.likelihood("poisson")
    assert (source.reads == 1).all()
    # the next run on the same measurement, calibrated otherwise: the same patterns
    second = Problem.from_data(data.calibrated(rotation=3.0), slices=2)
    assert (source.reads == 1).all()
    assert np.shares_memory(problem.patterns, second.patterns)
    assert problem.patterns.dtype == np.uint16
    # what nobody uses any more is given back
    del problem, second
    gc.collect()
    Problem.from_data(data)
    assert (source.reads == 2).all()


def test_patterns_in_memory_are_not_copied():
    data = measurement().loaded()
    problem = Problem.from_data(data)
    assert np.shares_memory(problem.patterns, Problem.from_data(data).patterns)
    assert np.shares_memory(problem.patterns, data.counts())
    floats = measurement(dtype="f4")
    assert np.shares_memory(Problem.from_data(floats).patterns, floats.counts())
    assert floats.patterns().dtype == np.float32
    assert not np.shares_memory(floats.patterns(), floats.counts())


def test_a_measurement_that_is_too_large_is_refused_before_it_is_read():
    source, data = counted()
    with pytest.raises(MemoryError, match="crop or bin"):
        Problem.from_data(data, budget=1000)
    with pytest.raises(DataError, match="scan step"):
        Problem.from_data(replace(data, calibration=KNOWN.model_copy(update={"scan_step": None})))
    assert (source.reads == 0).all()


def test_estimates_and_single_patterns_load_next_to_nothing():
    """The estimate loaded the data set anew at each change of a setting."""
    source, data = counted((9, 8))
    sketch = Problem.from_data(data, load=False)
    assert source.reads.sum() <= 16 * 8  # a row of patterns at a time, as they lie in the file
    data.reading.summary()
    before = source.reads.copy()
    sketch = Problem.from_data(data, load=False)
    assert (source.reads == before).all()
    whole = Problem.from_data(data)
    assert sketch.shape == whole.shape
    assert sketch.patterns.shape == whole.patterns.shape
    np.testing.assert_array_equal(sketch.positions, whole.positions)
    assert sketch.electrons == whole.electrons
    assert sketch.patterns.base is not None  # one pattern, shown for all
    assert sketch.patterns.strides[0] == 0

    before = source.reads.copy()
    volume = Volume(np.zeros(whole.shape, np.float32), whole.voxel_size, whole.origin, energy=300.0)
    measured, model = patterns_at(volume, data, 4, 3)
    assert (source.reads - before).sum() <= 8
    np.testing.assert_array_equal(measured, np.asarray(source.values[4, 3]))
    like = whole.likelihood("poisson")
    expected = like.patterns(torch.zeros(whole.shape), [4 * 8 + 3])[0]
    np.testing.assert_allclose(model, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_run_that_has_ended_gives_its_patterns_back():
    source, data = counted()
    problem = Problem.from_data(data).released()
    gc.collect()
    assert problem.patterns.shape == (30, 32, 32)
    Problem.from_data(data)
    assert (source.reads == 2).all()  # nothing was kept
    assert problem.volume(np.zeros(problem.shape, np.float32)).unit == "rad"


# ---- dropped frames -----------------------------------------------------------------------------
def test_dropped_frames_are_left_out_and_said():
    """One pattern without a count forbade the whole run."""
    counts = np.asarray(measurement().data).copy()
    counts[1, 2] = counts[3, 5] = 0
    data = FourDSTEM(counts, KNOWN, OPTICS)
    problem = Problem.from_data(data)
    assert len(problem.patterns) == len(problem.positions) == 28
    assert problem.provenance["left_out"]["positions"] == [[1, 2], [3, 5]]
    full = Problem.from_data(measurement())
    used = np.delete(np.arange(30), [1 * 6 + 2, 3 * 6 + 5])
    np.testing.assert_array_equal(problem.positions, full.positions[used])
    np.testing.assert_array_equal(problem.patterns, full.patterns[used])
    lit = np.asarray(data.data).sum((2, 3), dtype=float)
    assert problem.electrons == pytest.approx(lit[lit > 0].mean(), rel=1e-5)
    assert problem.shape == full.shape
    problem.likelihood("poisson")
    # refined positions come back for the whole scan
    found = RefineInfo(probe=problem.probe.numpy(), positions=problem.positions + 0.1)
    state = problem.microscope(found)
    moved = np.abs(state.positions - data.scan_positions()).max(axis=1)
    assert np.flatnonzero(moved < 1e-9).tolist() == [8, 23]


# ---- the microscope state -----------------------------------------------------------------------
def test_refined_probe_and_positions_are_taken_into_the_next_run(tmp_path):
    """What `refine` found was written nowhere and could not be used again."""
    from napari_mepdiff.microscope.state import MicroscopeState

    data = measurement()
    first = Problem.from_data(data, slices=2, margin=1.0)
    rng = np.random.default_rng(1)
    shift = rng.uniform(-1, 1, first.positions.shape)
    probe = first.probe.numpy() * np.exp(1j * rng.normal(0, 0.1, first.probe.shape))
    found = RefineInfo(probe=probe, positions=first.positions + shift)
    first.microscope(found, step=40).save(tmp_path / "state.h5")
    state = MicroscopeState.load(tmp_path / "state.h5")
    second = Problem.from_data(data, slices=2, margin=1.0, microscope=state)
    in_scan = second.positions + np.array(second.origin[1:])
    np.testing.assert_allclose(in_scan, data.scan_positions() + shift, atol=1e-9)
    ratio = second.probe.numpy() / probe.astype(np.complex64)
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)
    assert second.electrons == pytest.approx(first.electrons, rel=1e-5)
    assert second.provenance["microscope"]["step"] == 40
    second.likelihood("poisson")
    with pytest.raises(DataError, match="another measurement"):
        Problem.from_data(measurement((4, 6)), microscope=state)
    with pytest.raises(DataError, match="crop and bin"):
        Problem.from_data(data.crop_detector(24), microscope=state, check=False)


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0, 2.5])
def test_positions_may_move_by_the_margin(margin):
    """Windows stuck out of the canvas by a pixel, and the run died after 16 of 40 iterations."""
    problem = Problem.from_data(measurement(), margin=margin)
    low, high = problem.position_bounds()
    for corner in ([-1, -1], [-1, 1], [1, -1], [1, 1]):
        moved = problem.positions + margin * np.array(corner)
        assert (moved >= low).all()
        assert (moved <= high).all()
        Windows(moved, problem.shape[1:], (32, 32), problem.voxel_size[1:], "extended")
    for edge in (low, high):
        at_edge = np.tile(edge, (30, 1))
        Windows(at_edge, problem.shape[1:], (32, 32), problem.voxel_size[1:], "extended")
    for out in (low - 0.1, high + 0.1):
        with pytest.raises(ValueError, match="stick out"):
            Windows(out[None], problem.shape[1:], (32, 32), problem.voxel_size[1:], "extended")


def test_without_a_margin_the_canvas_is_as_ever():
    a, b = Problem.from_data(measurement()), Problem.from_data(measurement(), margin=1.0)
    rim = -(-1.0 // a.voxel_size[1])
    assert b.shape[1] - a.shape[1] == 2 * rim
    assert np.isinf(Problem.from_data(open_sample("srtio3"), load=False).position_bounds()[1]).all()


def test_what_is_doubtful_is_kept_with_the_problem():
    """Warnings of the validation were thrown away where a run began."""
    scaled = FourDSTEM(np.asarray(measurement().data) * 7, KNOWN, OPTICS)
    problem = Problem.from_data(scaled)
    assert any("divide by 7" in text for text in problem.findings)
    assert problem.provenance["findings"] == list(problem.findings)
    assert Problem.from_data(measurement()).findings == ()


def test_refine_takes_thick_slices_of_a_thick_specimen():
    from napari_mepdiff.measurement.dataset import Calibration
    from napari_mepdiff.reconstruction.registry import SOLVERS

    thick, thin = Calibration(thickness=78.0), Calibration(thickness=12.8)
    refine = SOLVERS["refine"]
    assert refine.slices(thick, None, None) == 8
    assert refine.slices(thick, 5, None) == 5
    assert refine.slices(thick, None, 1.6) is None
    assert refine.slices(thin, None, None) is None
    assert refine.slices(Calibration(), None, None) is None
    assert SOLVERS["dps"].slices(thick, None, None) is None
