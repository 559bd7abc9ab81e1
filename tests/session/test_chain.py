"""The steps from a measurement to a volume, one after another, without a window."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.reconstruction.registry import SOLVERS, Solver, SolverError
from napari_mepdiff.session.chain import Chain
from napari_mepdiff.session.jobs import Jobs
from napari_mepdiff.session.measured import outline
from napari_mepdiff.session.microscopes import Microscopes
from napari_mepdiff.session.plan import Plan, asked_in, plan_of
from napari_mepdiff.session.replay import play
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.session import Session
from napari_mepdiff.session.work import work
from tests.reconstruction.small import crystal_problem

STEP = 6.4 / 9  # Å


class Desk:
    """A session with everything that a chain takes, and ears for its messages."""

    def __init__(self, prior: str) -> None:
        self.session = Session(wait=False)
        self.runner = Runner(self.session)
        self.jobs = Jobs(self.session.report)
        self.microscopes = Microscopes(self.session)
        self.chain = Chain(self.session, self.runner, self.jobs, self.microscopes)
        self.said: list[tuple[str, str]] = []
        self.session.message.connect(lambda level, text, _details: self.said.append((level, text)))
        self.session.change_settings(
            "refine", iterations=2, probe_start=1, position_start=1, batch=8, modes=1, held_out=0.1
        )
        self.session.change_settings(
            "dps", prior=prior, guidance="newton", steps=4, evaluations=5, samples=1
        )

    def open(self, path, **options):
        self.session.take(open_4dstem(path, **options), str(path), **options)
        assert self.session.data is not None
        return self.session.data

    def until(self, condition, turns=20000):
        for _ in range(turns):
            if condition():
                return
            self.jobs.poll()
            self.runner.poll()
            time.sleep(0.002)
        raise AssertionError("it did not happen")


@pytest.fixture
def desk(prior):
    return Desk(prior)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Patterns of an extended crystal, and nothing else."""
    problem, _ = crystal_problem(boundary="extended", scan=9)
    path = tmp_path_factory.mktemp("bare") / "patterns.npy"
    np.save(path, np.asarray(problem.patterns))
    return path


def told(desk, bare, **more):
    desk.open(bare, scan_shape=(9, 9))
    fields = {"energy": 300.0, "semi_angle": 20.0, "scan_step_y": STEP, "scan_step_x": STEP}
    desk.session.change("preparation", **{**fields, **more})


@pytest.fixture(scope="module")
def through(bare, prior, tmp_path_factory):
    """A chain from bare patterns that went through to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEPDIFF_RECOVERY", str(tmp_path_factory.mktemp("recovery")))
        desk = Desk(prior)
        told(desk, bare)
        desk.before = desk.session.choices
        desk.folder = tmp_path_factory.mktemp("kept")
        desk.lines = []
        desk.chain.changed.connect(lambda: desk.lines.append(desk.chain.line))
        desk.chain.start(desk.folder)
        assert desk.chain.run_to_end(), desk.chain.reason
    return desk


def test_from_bare_patterns_to_a_volume(through):
    chain, session = through.chain, through.session
    assert "step 1 of 3: what the patterns say" in through.lines
    assert "step 3 of 3: with what crystals look like" in through.lines
    assert [s.state for s in chain.stages] == ["done"] * 3
    look, refine, sample = chain.stages
    assert any("detector pixel" in note for note in look.notes)
    first, last = session.runs
    assert (refine.run, sample.run) == (first.name, last.name)
    assert (first.solver, last.solver) == ("refine", "dps")
    assert refine.cost.seconds > 0
    path = through.folder / f"{first.file_stem}_microscope.h5"
    assert last.recipe.microscope.path == str(path)
    places = last.problem.positions + last.problem.origin[1:]
    np.testing.assert_allclose(places, first.microscope().positions, atol=1e-6)
    said = [text for level, text in through.said if level == "info"]
    assert any(t.startswith("by the patterns: detector pixel") for t in said)
    cost = next(t for t in said if t.startswith("step 2 of 3: volume and microscope together, "))
    assert " s, " in cost
    assert not [text for level, text in through.said if level == "error"]


def test_thickness_that_is_not_told_is_supposed_aloud(through):
    first, last = through.session.runs
    for run in (first, last):
        assert run.recipe.slices == 8
        assert run.recipe.slice_thickness == pytest.approx(1.6)
    assert any("8 slices of 1.6 Å are supposed" in note for note in through.chain.notes)


def test_choices_stay_but_for_what_the_patterns_say(through):
    choices, before = through.session.choices, through.before
    assert (choices.setup, choices.settings) == (before.setup, before.settings)
    assert choices.preparation.semi_angle == 20
    assert choices.preparation.pixel_mrad is not None
    assert through.session.undo() is not None
    assert through.session.choices.preparation == before.preparation
    through.session.redo()


def test_each_run_is_played_again_by_itself(through):
    for run in through.session.runs:
        record = run.record()
        assert not record.obstacles()
        assert re.fullmatch(r"napari-mepdiff, automatic, step [23] of 3", record.made_by)
        again = play(record)
        assert work(again) is None
        np.testing.assert_array_equal(again.frame.volume, run.frame.volume)


def test_the_refined_microscope_is_at_hand_for_the_next_run(through):
    first = through.session.runs[0]
    assert through.microscopes.shown == first.name
    kept = through.microscopes.found().path
    assert kept == through.folder / f"{first.file_stem}_microscope.h5"
    through.session.change("setup", microscope=str(kept))
    data = through.session.data
    plan = plan_of(data, asked_in(through.session))
    assert [step.title for step in plan.steps] == ["with what crystals look like"]
    assert plan.runs[0].microscope == "told"
    assert "is chosen as refined" in plan.notes[0]
    problem = outline(data, plan.runs[0].setup, plan.runs[0].settings)
    assert len(problem.probe) == 1
    through.session.undo()


def test_a_stop_in_mid_run_ends_the_chain_and_keeps_the_volume(desk, bare, tmp_path):
    told(desk, bare)
    desk.session.change_settings("refine", iterations=5000)
    desk.chain.start(tmp_path)
    desk.until(lambda: bool(desk.session.runs) and desk.session.runs[0].frame is not None)
    desk.chain.stop()
    assert desk.chain.going_on  # until the present step is done
    assert not desk.chain.run_to_end()
    assert [s.state for s in desk.chain.stages] == ["done", "stopped", "waiting"]
    (run,) = desk.session.runs
    assert run.state == "stopped"
    assert run.frame is not None
    assert "step 2 of 3" in desk.said[-1][1]
    assert "stopped by the user" in desk.chain.reason
    # and it begins anew when asked
    desk.session.change_settings("refine", iterations=2)
    desk.chain.start(tmp_path)
    assert desk.chain.run_to_end(), desk.chain.reason
    assert [r.state for r in desk.session.runs] == ["stopped", "done", "done"]


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_stop_while_the_patterns_are_looked_at_leaves_nothing(desk, bare, tmp_path, how):
    told(desk, bare)
    before = desk.session.choices
    desk.chain.start(tmp_path)
    if how == "stop":
        desk.chain.stop()
    else:
        desk.jobs.cancel()  # as the button beside its progress does
    desk.until(lambda: not desk.chain.going_on and not desk.jobs.poll())
    assert desk.chain.state == "stopped"
    assert desk.session.choices == before
    assert not desk.session.runs


def test_a_step_that_fails_ends_the_chain(desk, bare, tmp_path, monkeypatch):
    told(desk, bare)
    real = Solver.run

    def broken(entry):
        def steps(run):
            yield next(real(entry)(run))
            raise SolverError("the volume became NaN: smaller steps")

        return steps if entry is SOLVERS["refine"] else real(entry)

    monkeypatch.setattr(Solver, "run", broken)
    desk.chain.start(tmp_path)
    assert not desk.chain.run_to_end()
    assert [s.state for s in desk.chain.stages] == ["done", "failed", "waiting"]
    assert desk.chain.reason == "run 1 · Volume, probe and positions: the volume became NaN: " + (
        "smaller steps"
    )
    assert desk.session.runs[0].frame is not None
    assert not list(tmp_path.glob("*_microscope.h5"))


def test_a_microscope_that_cannot_be_kept_ends_the_chain(desk, bare, tmp_path, monkeypatch):
    told(desk, bare)

    def full(*_arguments, **_options):
        raise OSError("the disk is full")

    monkeypatch.setattr(desk.microscopes, "save", full)
    desk.chain.start(tmp_path)
    assert not desk.chain.run_to_end()
    assert desk.chain.state == "failed"
    assert desk.chain.reason == "the disk is full"
    assert [r.state for r in desk.session.runs] == ["done"]


def test_what_was_opened_meanwhile_does_not_matter_to_the_runs(desk, bare, tmp_path, measured):
    told(desk, bare)
    desk.chain.start(tmp_path)
    desk.until(lambda: bool(desk.session.runs))
    desk.open(measured)
    desk.session.change("preparation", energy=60.0)
    assert desk.chain.run_to_end(), desk.chain.reason
    first, last = desk.session.runs
    assert first.path == last.path == str(bare)
    assert last.recipe.preparation == first.recipe.preparation
    assert last.problem.energy == 300


def test_another_file_while_the_patterns_are_looked_at_ends_it(desk, bare, tmp_path, measured):
    told(desk, bare)
    desk.chain.start(tmp_path)
    desk.open(measured)
    before = desk.session.choices.preparation
    assert not desk.chain.run_to_end()
    assert "another measurement" in desk.chain.reason
    assert desk.session.choices.preparation == before
    assert not desk.session.runs


def test_a_simulation_with_a_known_probe_is_not_refined(desk, measured, tmp_path):
    desk.open(measured)
    desk.chain.start(tmp_path / "is not needed")
    assert desk.chain.line == "step 1 of 2: what the patterns say"
    assert desk.chain.run_to_end(), desk.chain.reason
    (run,) = desk.session.runs
    assert run.solver == "dps"
    assert run.recipe.microscope is None
    assert "nothing to refine: a simulated periodic field" in desk.chain.notes[0]


def test_what_is_not_told_is_asked_for_before_anything_begins(desk, bare, tmp_path):
    with pytest.raises(ValueError, match="open 4D-STEM data first"):
        desk.chain.start(tmp_path)
    told(desk, bare, semi_angle=None)
    with pytest.raises(ValueError, match=r"not told: semi-angle or detector pixel"):
        desk.chain.start(tmp_path)
    desk.session.change("preparation", semi_angle=20.0)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        desk.chain.start(tmp_path / "nowhere")
    assert desk.chain.state == "waiting"
    desk.chain.start(tmp_path)
    with pytest.raises(ValueError, match="going on already"):
        desk.chain.start(tmp_path)
    desk.chain.stop()


def test_a_step_may_begin_from_the_volume_before_it(desk, bare, tmp_path, monkeypatch):
    told(desk, bare)
    desk.session.change("setup", slices=16)  # 25.6 Å: 3 slices of refine, 16 of the prior

    def longer(data, asked):
        plan = plan_of(data, asked)
        look, refine, sample = plan.steps
        again = replace(refine, title="again", microscope="refined", start="volume")
        return Plan((look, refine, sample, again), plan.notes)

    monkeypatch.setattr("napari_mepdiff.session.chain.plan_of", longer)
    desk.chain.start(tmp_path)
    assert desk.chain.run_to_end(), desk.chain.reason
    first, sampled, last = desk.session.runs
    assert (sampled.recipe.slices, sampled.recipe.together) == (16, 6)
    assert first.recipe.slices == last.recipe.slices == 3
    assert last.started_from == sampled.name
    assert last.recipe.microscope.path == sampled.recipe.microscope.path
    inner = sampled.frame.volume.sum(axis=0)
    offset = round((sampled.problem.origin[1] - last.problem.origin[1]) / 0.2)
    height = inner.shape[0]
    begun = last.start.sum(axis=0)[offset : offset + height, offset : offset + height]
    np.testing.assert_allclose(begun, inner, atol=1e-4)


def test_in_a_second_round_the_microscope_is_refined_from_the_sampled_volume(desk, bare, tmp_path):
    told(desk, bare)
    desk.session.change_settings("refine", iterations=3, probe_start=3, modes=2)
    desk.chain.start(tmp_path, rounds=2)
    assert desk.chain.line == "step 1 of 5: what the patterns say"
    assert desk.chain.run_to_end(), desk.chain.reason
    _, sampled, again, last = desk.session.runs
    assert [r.solver for r in desk.session.runs] == ["refine", "dps", "refine", "dps"]
    assert again.first.volume == "held"
    assert again.started_from == sampled.name
    assert again.recipe.microscope.path == sampled.recipe.microscope.path
    assert last.recipe.microscope.path == str(tmp_path / f"{again.file_stem}_microscope.h5")
    np.testing.assert_allclose(
        again.frame.volume.sum(dtype=np.float64),
        sampled.frame.volume.sum(dtype=np.float64),
        rtol=1e-5,
    )
