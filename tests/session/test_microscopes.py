"""The microscope of a measurement, told, estimated and refined, and what is taken over of it."""

from __future__ import annotations

from dataclasses import replace
from math import degrees

import numpy as np
import pytest

from napari_mepdiff.microscope.estimate import estimate
from napari_mepdiff.microscope.moves import moves
from napari_mepdiff.microscope.phase import phase_curve
from napari_mepdiff.microscope.state import MicroscopeState
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.session.microscope_table import as_words
from napari_mepdiff.session.microscopes import Microscopes
from napari_mepdiff.session.session import Session
from napari_mepdiff.session.work import work

from .small import small_data

TOLD = 80.0  # Å; the true overfocus is 60 Å
PASSES = {
    "iterations": 8,
    "probe_start": 6,
    "position_start": 2,
    "batch": 8,
    "modes": 1,
    "volume_step": 4.0,
}


@pytest.fixture(scope="module")
def refined():
    """A run of `refine` on a measurement whose defocus is told wrong."""
    session = opened()
    session.change("setup", solver="refine", slices=4, slice_thickness=1.6)
    session.change_settings("refine", **PASSES)
    run = session.new_run()
    assert work(run) is None
    run.state = "done"
    return run


def opened():
    session = Session()
    optics = Optics(semi_angle=20, overfocus=TOLD, C30=5000)
    session.take(replace(small_data(scan=9), optics=optics), "small.h5")
    return session


@pytest.fixture
def found(refined):
    """A session on that measurement to which the run belongs."""
    session = opened()
    session.add_run(refined)
    return Microscopes(session)


def row(found, name):
    return next(r for r in found.rows() if r.name == name)


def test_told_and_refined_values_stand_side_by_side(found, refined):
    focus = row(found, "C10")
    assert focus.told == TOLD
    assert focus.estimated is None
    assert focus.refined == refined.frame.info.optics.overfocus
    assert abs(focus.refined - 60) < 0.7 * abs(TOLD - 60)
    assert focus.unit == "Å"
    assert (focus.block, focus.free) == ("probe", True)
    assert row(found, "beam energy").told == 300
    assert not row(found, "C30").free  # it is taken as it is told
    scale = row(found, "scan scale y")
    assert (scale.block, scale.told) == ("positions", 0.0)
    assert scale.refined is not None


def test_estimates_come_beside_them_until_the_patterns_change(found):
    guess = estimate(found.session.data)
    found.take_estimate(guess)
    disk = row(found, "semi-angle")
    assert disk.told == 20
    assert disk.estimated == guess["semi-angle"].value
    assert disk.estimated_error == guess["semi-angle"].error
    found.session.change("preparation", overfocus=70.0)  # the patterns are the same
    assert found.estimated is guess
    found.session.change("preparation", flip_y=True)
    assert found.estimated is None


def test_refined_values_are_taken_over_in_one_step_and_back(found, refined):
    session, optics = found.session, refined.frame.info.optics
    before = session.choices.preparation
    said = found.take_over({"C10": "refined", "C12": "refined"})
    assert "verfocus" in said
    p = session.choices.preparation
    assert p.overfocus == optics.overfocus
    assert p.C12 == optics.C12
    assert session.data.optics.overfocus == optics.overfocus
    assert row(found, "C10").told == optics.overfocus
    assert session.undo() is not None
    assert session.choices.preparation == before
    assert session.data.optics.overfocus == TOLD


def test_an_aberration_takes_its_angle_along(found, refined):
    optics = refined.frame.info.optics.model_copy(update={"C12": 20.0, "phi12": 0.5})
    state = replace(refined.microscope(), optics=optics, errors={"C12a": 1.0, "C12b": 1.0})
    found.show_file(replace(found.found(), name="file.h5", state=state))
    assert row(found, "phi12").refined == pytest.approx(degrees(0.5))
    found.take_over({"C12": "refined"})
    assert found.session.choices.preparation.C12 == 20
    assert found.session.choices.preparation.phi12 == pytest.approx(0.5)


def test_what_cannot_be_taken_over_is_refused_with_the_reason(found):
    before = found.session.choices
    for chosen, words in (
        ({}, "choose what to take over"),
        ({"C10": "estimated"}, "nothing is estimated"),
        ({"tilt y": "refined"}, "Use in next run"),
        ({"C99": "refined"}, "not known"),
    ):
        with pytest.raises(ValueError, match=words):
            found.take_over(chosen)
    other = found.session.new_run()
    other.state = "running"
    found.session.add_run(other)
    with pytest.raises(ValueError, match="still going on: stop it first"):
        found.take_over({"C10": "refined"})
    assert found.session.choices == before


def test_the_next_run_begins_with_what_was_refined(found, refined, tmp_path):
    session, path = found.session, tmp_path / "first_microscope.h5"
    with pytest.raises(ValueError, match="say where to keep it"):
        found.use_in_next_run()
    written = found.use_in_next_run(path)
    assert written == path
    assert session.choices.setup.microscope == str(path)
    session.change("setup", solver="refine", slices=4)
    problem = session.new_run().recipe.problem(session.data)
    np.testing.assert_allclose(
        problem.positions, refined.microscope().positions - problem.origin[1:], atol=1e-6
    )
    stamp = path.stat().st_mtime_ns
    assert found.use_in_next_run() == path  # that file holds it already
    assert path.stat().st_mtime_ns == stamp
    while session.choices.setup.microscope:
        assert session.undo("setup") is not None
    path.write_bytes(b"someone else's")
    found._kept.clear()
    with pytest.raises(FileExistsError):
        found.use_in_next_run(path)
    assert path.read_bytes() == b"someone else's"


@pytest.mark.parametrize("kind", ["own", "ptyrad", "py4dstem"])
def test_what_is_saved_loads_again(found, refined, tmp_path, kind):
    path = tmp_path / "saved.h5"
    assert found.save(path, kind).path == (path if kind == "own" else None)
    focus = row(found, "C10").refined
    loaded = found.load(path)
    assert found.shown == loaded.name
    assert found.run is None
    np.testing.assert_allclose(loaded.state.probe, refined.microscope().probe, atol=1e-4)
    if kind == "own":
        assert row(found, "C10").refined == pytest.approx(focus)
    found.choose("")
    assert found.shown == loaded.name  # the newest
    found.choose(refined.name)
    assert found.run is refined


def test_a_state_of_another_scan_is_refused(found, refined, tmp_path):
    state = refined.microscope()
    MicroscopeState(state.probe, state.positions[:-1], state.pixel_size, state.energy).save(
        tmp_path / "other.h5"
    )
    with pytest.raises(ValueError, match="another measurement"):
        found.load(tmp_path / "other.h5")
    assert found.shown == refined.name


def test_another_file_is_another_microscope(found):
    found.session.take(small_data(), "other.h5")
    assert found.sources == []
    assert row(found, "C10").refined is None


def test_blocks_are_set_free_and_held(found):
    found.set_free("probe", False)
    found.set_free("tilt", False)
    settings = found.session.settings("refine")
    assert (settings.probe, settings.tilt, settings.positions) == ("fixed", False, "free")
    assert not row(found, "C10").free
    assert not row(found, "tilt y").free
    found.session.undo()
    assert found.session.settings("refine").tilt
    with pytest.raises(ValueError, match="free are"):
        found.set_free("C10", True)


def test_records_tell_how_values_went(refined):
    records = refined.frames.records
    assert [r["step"] for r in records] == list(range(1, 9))
    assert records[-1]["C10"] == refined.frame.info.optics.overfocus
    assert records[0]["moved"] == 0
    assert records[-1]["moved"] > 0
    assert {"tilt y", "tilt x", "background"} <= records[-1].keys()


def test_arrows_are_exaggerated_by_a_round_number():
    told = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
    shift = np.tile([[0.03, -0.04]], (25, 1))
    arrows = moves(told, told + shift)
    assert arrows.rms == pytest.approx(0.05)
    assert arrows.spacing == pytest.approx(1, abs=0.25)
    assert arrows.exaggeration in (15, 20)  # 0.05 Å as long as neighbours are apart, or less
    np.testing.assert_allclose(arrows.vectors[:, 0], told)
    np.testing.assert_allclose(arrows.vectors[:, 1], arrows.exaggeration * shift)
    assert moves(told, told).exaggeration == 1
    with pytest.raises(ValueError, match="another measurement"):
        moves(told, told[:-1])


def test_phase_of_a_defocus_is_a_parabola():
    optics = Optics(energy=300, semi_angle=20, overfocus=100, C30=0)
    curve = phase_curve(optics)
    chi = np.pi / optics.wavelength * (curve.angle * 1e-3) ** 2 * 100
    np.testing.assert_allclose(curve.mean, chi, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(curve.high - curve.low, 0, atol=1e-9)
    stig = phase_curve(optics.model_copy(update={"C12": 30.0}))
    np.testing.assert_allclose(stig.high - stig.low, 2 * 0.3 * chi, rtol=1e-2, atol=1e-12)


def test_numbers_have_the_digits_that_their_error_leaves():
    for value, error, words in (
        (None, None, ""),
        (120.84, 1.27, "120.8 ± 1.3"),
        (205.73451, 0.0041, "205.73"),
        (206.3, 7.4, "206 ± 7"),
        (0.00012, 0.031, "0.00 ± 0.03"),
        (0.03906, 0.0002, "0.0391 ± 0.0002"),
        (261472.0, 2615.0, "(2.61 ± 0.03)e5"),
        (0.031337, None, "0.03134"),
        (1e6, None, "1e6"),
        (-3.4e-16, None, "0"),
        (5.0, float("nan"), "5"),
    ):
        assert as_words(value, error) == words
