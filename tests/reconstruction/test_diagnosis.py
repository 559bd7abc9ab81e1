"""Known causes are named, the strongest first, and nothing is where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.reconstruction.diagnosis import WELL, diagnose
from napari_mepdiff.reconstruction.diagnosis.detector import rows_of
from napari_mepdiff.reconstruction.diagnosis.sample import spread_sample
from napari_mepdiff.reconstruction.frame import RefineInfo
from napari_mepdiff.reconstruction.registry import SOLVERS, solve

from .measured import TOLD, measured, optics, specimen

TRUTH = specimen().numpy()
KNOWN = {
    "soft edge": {"true": optics(soft_edge=1.5)},
    "defocus": {"true": optics(overfocus=80)},
    "wide aperture": {"true": optics(semi_angle=21)},
    "narrow aperture": {"true": optics(semi_angle=19)},
    "astigmatism": {"true": optics(C12=12, phi12=0.3)},
    "coma": {"true": optics(C21=1200, phi21=1.0)},
    "source size": {"source": 0.2},
    "positions": {"jitter": 0.12},
    "scan": {"affine": ((1, 0.02), (-0.02, 1))},
    "tilt": {"tilt": (9.0, -4.0)},
    "background": {"background": 0.5},
    "blur": {"blur": 0.6},
    "centre": {"centre": (1, -2)},
    "gain": {"gain": 20.7},
    "faulty pixels": {"hot": (40, 22)},
}


@pytest.fixture(scope="module")
def found():
    """The diagnosis of the true volume for each cause, made when it is first asked for."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = diagnose(measured(**KNOWN[name]), TRUTH)
        return kept[name]

    return of


def test_a_measurement_that_is_explained_is_left_in_peace():
    diagnosis = diagnose(measured(), TRUTH)
    assert diagnosis.verdict == "well"
    assert diagnosis.misfit < 1.02
    assert diagnosis.causes == diagnosis.remedies == ()
    assert "nothing is wrong" in str(diagnosis)
    assert diagnosis.pictures.chi2.mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", KNOWN)
def test_the_cause_is_named_first(found, name):
    diagnosis = found(name)
    assert diagnosis.misfit > WELL
    assert diagnosis.verdict == "explained"
    first = diagnosis.causes[0]
    assert first.name == name, [(c.name, c.strength) for c in diagnosis.causes]
    assert first.strength > 0.6
    assert all(c.strength < 0.4 * first.strength for c in diagnosis.causes[1:])
    assert first.words in str(diagnosis)


def test_the_size_of_an_error_is_told(found):
    words = {name: found(name).causes[0].words for name in KNOWN}
    assert "one electron is 20.7" in words["gain"]
    assert "(40, 22)" in words["faulty pixels"]
    assert "(+1, -2) px" in words["centre"]
    electrons = float(words["background"].split("about ")[1].split(" ")[0])
    assert electrons == pytest.approx(0.5, rel=0.05)
    assert "the model has a hard one" in words["soft edge"]
    assert "more overfocus" in words["defocus"]
    assert "about 9." in words["tilt"]
    assert "+1.1° of rotation" in words["scan"]
    astigmatism = float(words["astigmatism"].split("about ")[1].split(" Å")[0])
    assert astigmatism == pytest.approx(12, rel=0.4)
    wider = found("wide aperture").remedies[0].preparation["semi_angle"]
    assert 20.3 < wider <= 21.6


def test_every_remedy_is_one_that_can_be_carried_out(found):
    from napari_mepdiff.measurement.preparation import Preparation

    for name in KNOWN:
        for remedy in found(name).remedies:
            SOLVERS[remedy.solver or "refine"].default(**remedy.settings)
            fields = {k: v for k, v in remedy.preparation.items() if k != "centre"}
            Preparation(**fields)
            assert remedy.option
    assert found("positions").remedies[0].settings == {"positions": "free"}
    assert found("scan").remedies[0].settings == {"positions": "affine"}
    assert found("soft edge").remedies[0].solver == "refine"
    assert found("gain").remedies[0].preparation == {"gain": 20.7}
    assert found("faulty pixels").remedies[0].preparation == {"repair_pixels": True}
    assert found("centre").remedies[0].preparation == {"centre": (1.0, -2.0)}
    assert found("blur").causes[0].remedy is None


def test_pictures_show_where_it_is(found):
    edge = found("soft edge")
    p = edge.pictures
    assert p.angles[np.argmax(p.radial_chi2)] == pytest.approx(TOLD.semi_angle, abs=1.6)
    assert p.aperture == TOLD.semi_angle
    assert p.pixel_mrad[0] == pytest.approx(1e3 * TOLD.wavelength / 12.8)
    assert "at the edge of the bright disk" in edge.where
    hot = found("faulty pixels").pictures
    assert np.unravel_index(np.argmax(hot.chi2), hot.chi2.shape) == (40, 22)
    assert hot.residual[40, 22] > 10
    assert p.positions.shape == (64, 2)
    assert p.position_chi2.mean() == pytest.approx(edge.misfit)


def test_a_part_of_the_field_that_differs_is_pointed_at():
    problem = measured()
    counts = problem.patterns.copy()
    counts[[8, 9, 10, 16, 17]] = counts[[40, 33, 51, 62, 29]]  # something else lies there
    diagnosis = diagnose(replace(problem, patterns=counts), TRUTH)
    assert "A tenth of the positions" in diagnosis.where


@pytest.mark.parametrize(
    ("name", "beside"), [("defocus", "spherical"), ("positions", ""), ("scan", "positions")]
)
def test_the_cause_is_found_behind_a_volume_that_adapted_to_it(name, beside):
    """A volume that was solved for with the wrong microscope hides the error."""
    problem = measured(**KNOWN[name])
    settings = SOLVERS["lbfgs"].default(iterations=4, learning_rates=(1.0,))
    volume = list(solve(problem, settings, start=TRUTH))[-1].volume
    diagnosis = diagnose(problem, volume)
    first = diagnosis.causes[0]
    assert first.name == name, [(c.name, c.strength) for c in diagnosis.causes]
    # what these patterns cannot tell apart is said
    assert not first.like or beside in first.like
    assert first.strength > 0.08
    assert "unfinished" not in [c.name for c in diagnosis.causes[:1]]


def test_a_volume_that_is_not_finished_is_not_blamed_on_the_microscope():
    problem = measured()
    settings = SOLVERS["lbfgs"].default(iterations=2, learning_rates=(1.0,))
    volume = list(solve(problem, settings))[-1].volume
    diagnosis = diagnose(problem, volume)
    assert diagnosis.misfit > 1.3
    assert [c.name for c in diagnosis.causes] == ["unfinished"]
    assert "more iterations" in str(diagnosis)
    assert diagnosis.remedies == ()


def test_what_it_does_not_know_it_does_not_blame():
    """Patterns in another order than the scan."""
    problem = measured()
    order = np.random.default_rng(1).permutation(64)
    diagnosis = diagnose(replace(problem, patterns=problem.patterns[order]), TRUTH)
    assert diagnosis.misfit > 1.3
    named = [c for c in diagnosis.causes if c.name != "unfinished"]
    assert all(c.strength < 0.3 for c in named), [(c.name, c.strength) for c in named]


def test_values_that_are_no_counts_are_said_to_be_none():
    problem = measured(electrons=1e4)
    smooth = problem.likelihood("poisson").patterns(specimen()).numpy()
    diagnosis = diagnose(replace(problem, patterns=smooth), TRUTH)
    assert diagnosis.verdict == "unknown"
    assert "says nothing" in str(diagnosis)


def test_a_gain_is_known_by_the_scatter_where_values_come_in_no_steps():
    problem = measured(gain=8.0, scan=20)
    rng = np.random.default_rng(3)
    blurred = problem.patterns * rng.normal(1, 0.02, problem.patterns.shape)
    diagnosis = diagnose(replace(problem, patterns=blurred.astype(np.float32)), TRUTH)
    assert diagnosis.causes[0].name == "gain"
    assert diagnosis.causes[0].remedy.preparation["gain"] == pytest.approx(8, rel=0.1)


def test_the_microscope_that_a_run_found_is_the_one_that_is_judged():
    problem = measured(**KNOWN["positions"], background=0.3)
    true = np.random.default_rng(0)
    places = problem.positions + 0.12 * true.normal(size=problem.positions.shape)
    share = 0.3 * 64 * 64 / float(problem.patterns.sum(axis=(1, 2)).mean())
    info = RefineInfo(
        probe=(problem.probe * (1 - share) ** 0.5).numpy(), positions=places, background=0.3
    )
    assert diagnose(problem, TRUTH).verdict == "explained"
    assert diagnose(problem, TRUTH, info).verdict == "well"


def test_progress_goes_up_and_ends_the_work():
    told = []
    problem = measured(**KNOWN["defocus"])
    diagnose(problem, TRUTH, report=told.append)
    rising = [f for f in told if f > 0]
    assert rising == sorted(rising)
    assert rising[-1] == 1.0

    class Enough(Exception):
        pass

    def stop(fraction):
        if fraction > 0.3:
            raise Enough

    with pytest.raises(Enough):
        diagnose(problem, TRUTH, report=stop)


def test_an_extended_canvas_and_a_mask():
    """The field of a real measurement: a patch of it is let go on."""
    from .small import crystal_problem

    problem, volume = crystal_problem(boundary="extended", scan=7, electrons=1e6)
    mask = np.ones((32, 32), np.float32)
    mask[4, 5] = 0
    problem = replace(problem, mask=mask)
    assert diagnose(problem, volume).verdict == "well"
    rng = np.random.default_rng(0)
    moved = problem.positions + rng.normal(0, 0.08, problem.positions.shape)
    diagnosis = diagnose(replace(problem, positions=moved), volume)
    assert diagnosis.causes[0].name == "positions"
    assert np.isnan(diagnosis.pictures.chi2[4, 5])


def test_released_patterns_and_other_grids_are_refused():
    problem = measured()
    with pytest.raises(ValueError, match="let go"):
        diagnose(replace(problem, patterns=problem.patterns[:0]), TRUTH)
    with pytest.raises(ValueError, match="the problem asks for"):
        diagnose(problem, TRUTH[:2])
    assert "diverged" in str(diagnose(problem, np.full_like(TRUTH, np.nan)))


def test_the_sample_is_spread_over_the_field():
    y, x = np.meshgrid(np.arange(100.0), np.arange(100.0), indexing="ij")
    places = np.stack([y.ravel(), x.ravel()], axis=1)
    judged, others = spread_sample(places)
    assert len(judged) == len(others) == 150
    assert not set(judged) & set(others)
    cells = {tuple(c) for c in (places[judged] // 20).astype(int)}
    assert len(cells) == 25


def test_rows_of_a_scan():
    raster = measured(scan=6).positions
    assert [len(r) for r in rows_of(raster)] == [6] * 6
    rng = np.random.default_rng(0)
    assert rows_of(rng.uniform(0, 10, (40, 2))) == []
