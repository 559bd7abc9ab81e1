"""What the patterns say is taken over where nobody told it, and said; what was told stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
from napari_mepdiff.measurement.preparation import Preparation
from napari_mepdiff.microscope.estimate import estimate
from napari_mepdiff.session.automatic import depth_for_prior, microscope_known, told_by_patterns

from ..microscope.thin import ANGLE, ENERGY, record


@pytest.fixture(scope="module")
def recorded():
    return record(5, rotation=-60.0)


def _bare(data, **told):
    known = {"energy": ENERGY, "semi_angle": ANGLE, "scan_step": (1.0, 1.0)}
    return FourDSTEM(np.asarray(data.data), Calibration(**known | told))


def test_a_bare_file_becomes_a_calibrated_measurement(recorded):
    bare = _bare(recorded)
    found = estimate(bare)
    after, notes = told_by_patterns(Preparation(), bare, found)
    assert after.pixel_mrad == pytest.approx(ANGLE / found.disk.radius)
    assert abs(after.overfocus) == pytest.approx(250, abs=3 * found["C10"].error)
    assert after.gain is None  # these are counts
    said = " ".join(notes)
    assert "detector pixel" in said
    assert "overfocus" in said
    prepared = after.apply(bare)
    assert prepared.calibration.pixel_size == pytest.approx(
        recorded.calibration.pixel_size, rel=0.02
    )


def test_a_gain_is_taken_over_whatever_was_told(recorded):
    scaled = FourDSTEM(np.asarray(recorded.data) * np.float32(37.0), recorded.calibration)
    after, notes = told_by_patterns(Preparation(), scaled, estimate(scaled))
    assert after.gain == pytest.approx(37, rel=0.05)
    assert "gain 37" in " ".join(notes) or "gain 36" in " ".join(notes)
    counted = after.apply(scaled)
    half = estimate(counted)
    assert told_by_patterns(after, counted, half)[0].gain == after.gain  # once is enough


def test_a_disk_off_the_middle_is_centred(recorded):
    moved = FourDSTEM(
        np.roll(np.asarray(recorded.data), (3, -2), axis=(2, 3)), recorded.calibration
    )
    after, notes = told_by_patterns(Preparation(), moved, estimate(moved))
    middle_y, middle_x = (n // 2 for n in moved.detector_shape)
    assert after.centre_y == pytest.approx(middle_y + 3, abs=0.5)
    assert after.centre_x == pytest.approx(middle_x - 2, abs=0.5)
    assert any("off the middle" in note for note in notes)
    centred = after.apply(moved)
    again, _ = told_by_patterns(after, centred, estimate(centred))
    assert (again.centre_y, again.centre_x) == (after.centre_y, after.centre_x)


def test_centre_and_orientation_are_taken_over_together(recorded):
    """The orientation forgot the centre that was taken over a moment before."""
    lying = np.roll(np.asarray(recorded.data).swapaxes(2, 3), (3, -2), axis=(2, 3))
    bare = _bare(FourDSTEM(lying, recorded.calibration))
    found = estimate(bare)
    best = replace(found.orientations[0], curl=0.1)  # as a specimen with no lattice tells it
    found = replace(found, sign="likely", orientations=(best, *found.orientations[1:]))
    after, notes = told_by_patterns(Preparation(), bare, found)
    assert any(
        "detector read 'transpose'" in note and note.endswith(": taken over") for note in notes
    )
    again = estimate(after.apply(bare))
    middle = [n // 2 for n in bare.detector_shape]
    assert again.disk.centre == pytest.approx(middle, abs=0.6)
    best = again.orientations[0]
    assert best.name == "as it is"
    assert best.rotation == pytest.approx(after.apply(bare).calibration.rotation, abs=3)


def test_what_was_told_stays_and_a_contradiction_is_said(recorded):
    told = Preparation(overfocus=-900.0, rotation=20.0)
    data = told.apply(recorded)
    after, notes = told_by_patterns(told, data, estimate(data))
    assert (after.overfocus, after.rotation) == (-900.0, 20.0)
    assert any("told, kept" in note for note in notes)


def test_a_probe_that_the_file_holds_is_kept(recorded):
    """A defocus taken over made another one in its place."""
    probe = np.ones((1, *recorded.detector_shape), np.complex64)
    held = replace(_bare(recorded), probe=probe)
    after, notes = told_by_patterns(Preparation(), held, estimate(held))
    assert after.overfocus is None
    assert any("the file holds the probe" in note for note in notes)


def test_depth_for_the_prior():
    thick = depth_for_prior(Calibration(thickness=78.0))
    assert (thick.slices, thick.together) == (49, 6)
    assert thick.slices * thick.slice_thickness == pytest.approx(78)
    thin = depth_for_prior(Calibration(thickness=12.8))
    assert (thin.slices, thin.together) == (8, 1)
    assert depth_for_prior(Calibration()).slices == 8


def test_a_known_probe_needs_no_refinement(recorded):
    assert microscope_known(recorded) == ""
