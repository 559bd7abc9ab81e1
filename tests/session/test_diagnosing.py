"""A run says what its misfit is made of; a remedy is one step of undo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.measurement.formats import own
from napari_mepdiff.measurement.preparation import Preparation
from napari_mepdiff.reconstruction.diagnosis import Cause, Diagnosis, Remedy
from napari_mepdiff.session.diagnosing import (
    absolute,
    apply,
    diagnose_file,
    diagnose_run,
    remedies_of,
    worth_it,
)
from napari_mepdiff.session.jobs import Jobs
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.saving import save_run
from napari_mepdiff.session.session import Session

from .small import QUICK, small_data


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEPDIFF_CACHE", str(tmp_path / "cache"))


def scaled(gain):
    data = small_data(truth=False)
    return replace(data, data=(np.asarray(data.data) * gain).astype(np.float32))


@pytest.fixture
def session(tmp_path):
    """With a measurement in which an electron is 20.7, and a run of it."""
    own.save(scaled(20.7), tmp_path / "scaled.h5")
    session = Session()
    from napari_mepdiff.measurement.formats import open_4dstem

    session.take(open_4dstem(tmp_path / "scaled.h5"), str(tmp_path / "scaled.h5"))
    session.change("setup", solver="lbfgs", slices=4, slice_thickness=1.6)
    session.change_settings("lbfgs", **QUICK["lbfgs"])
    runner = Runner(session)
    runner.start()
    runner.run_to_end()
    return session


def test_a_job_diagnoses_a_run_and_the_record_says_so(session):
    run, told = session.runs[0], []
    assert worth_it(run)
    assert "gain" in run.outcome.verdict  # one guess among many
    jobs = Jobs(lambda error, title: pytest.fail(f"{title}: {error}"))
    jobs.run("diagnose", "diagnosing", lambda report: diagnose_run(run, report), told.append)
    assert jobs.wait()
    assert told == [run.diagnosis]
    assert run.diagnosis.causes[0].name == "gain"
    assert run.record().outcome.verdict == str(run.diagnosis)
    assert "one electron is 20.7" in run.record().model_dump_json()


def test_a_cancelled_diagnosis_leaves_nothing(session):
    run = session.runs[0]
    before = run.outcome

    def report(fraction):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        diagnose_run(run, report)
    assert run.diagnosis is None
    assert run.outcome == before


def test_a_remedy_is_one_step_of_undo(session):
    run = session.runs[0]
    diagnose_run(run)
    remedy = remedies_of(session, run)[0]
    assert (remedy.title, remedy.option) == ("Set the gain to 20.7", "--gain 20.7")
    apply(session, remedy)
    assert session.choices.preparation.gain == 20.7
    assert float(session.data.pattern(0, 0).sum()) < 0.06 * float(session.raw.pattern(0, 0).sum())
    session.undo()
    assert session.choices.preparation.gain is None
    both = Remedy(
        "all", solver="refine", settings={"positions": "affine"}, preparation={"gain": 2.0}
    )
    before = session.choices
    apply(session, both)
    assert session.choices.setup.solver == "refine"
    assert session.settings("refine").positions == "affine"
    assert session.choices.preparation.gain == 2.0
    session.undo()
    assert session.choices == before


def test_a_remedy_takes_the_preparation_into_account():
    gain = Remedy("Set the gain to 2", "--gain 2", preparation={"gain": 2.0})
    done = absolute(gain, Preparation(gain=10.0))
    assert (done.title, done.option) == ("Set the gain to 20", "--gain 20")
    assert done.preparation == {"gain": 20.0}
    centre = Remedy("Centre", preparation={"centre": (1.0, -2.0)})
    assert absolute(centre, Preparation(), (64, 32)).option == "--centre-y 33 --centre-x 14"
    turned = absolute(centre, Preparation(transpose=True, bin=2), (64, 32))
    assert turned.preparation == {"centre_y": 18.0, "centre_x": 28.0}
    again = absolute(centre, Preparation(centre_y=30, centre_x=31), (64, 64))
    assert again.preparation == {"centre_y": 31.0, "centre_x": 29.0}
    assert absolute(centre, Preparation()).preparation == {}


def test_a_better_microscope_of_another_run_is_offered(tmp_path):
    session = Session()
    data = small_data(truth=False)
    session.take(data, "small.h5")
    session.change("setup", slices=4, slice_thickness=1.6)
    runner = Runner(session)
    for solver in ("refine", "lbfgs"):
        session.change("setup", solver=solver)
        session.change_settings(solver, **QUICK[solver])
        runner.start()
        runner.run_to_end()
    refined, run = session.runs
    cause = Cause("defocus", "The defocus is wrong.", 0.5)
    run.diagnosis = Diagnosis(9.0, "explained", "Much.", (cause,))
    run.frames.last.__dict__["loss"] = 2 * refined.frame.loss
    remedy = remedies_of(session, run)[-1]
    assert remedy.title == f"Use the microscope of {refined.name}"
    apply(session, remedy)
    assert session.choices.setup.microscope.startswith(str(tmp_path / "cache"))
    place = session.choices.setup.microscope
    apply(session, remedy)  # the same file, which is not written twice
    assert session.choices.setup.microscope == place
    session.change("setup", solver="lbfgs")
    after = session.new_run()
    assert after.recipe.problem(after.data).provenance["microscope"]["run"] == refined.name
    session.undo()
    session.undo()
    assert session.choices.setup.microscope == ""


def test_a_volume_in_a_file_is_diagnosed_with_its_record(session, tmp_path):
    run = session.runs[0]
    save_run(run, tmp_path / "volume.h5")
    found, remedies = diagnose_file(tmp_path / "volume.h5")
    assert found.causes[0].name == "gain"
    assert remedies[0].option == "--gain 20.7"
    save_run(run, tmp_path / "part.h5", y=slice(4, 20))
    with pytest.raises(ValueError, match="a part of its volume"):
        diagnose_file(tmp_path / "part.h5")


def test_a_refined_microscope_beside_the_volume_is_used(tmp_path):
    own.save(small_data(truth=False), tmp_path / "small.h5")
    session = Session()
    from napari_mepdiff.measurement.formats import open_4dstem

    session.take(open_4dstem(tmp_path / "small.h5"), str(tmp_path / "small.h5"))
    session.change("setup", solver="refine", slices=4, slice_thickness=1.6)
    session.change_settings("refine", **QUICK["refine"])
    runner = Runner(session)
    run = runner.start()
    runner.run_to_end()
    save_run(run, tmp_path / "volume.h5")
    assert (tmp_path / "volume_microscope.h5").exists()
    found, _ = diagnose_file(tmp_path / "volume.h5")
    assert found.misfit == pytest.approx(diagnose_run(run).misfit, rel=1e-4)
    assert found.misfit != pytest.approx(
        diagnose_file_without(tmp_path, run), rel=1e-4
    )  # the told one fits worse


def diagnose_file_without(folder, run):
    (folder / "volume_microscope.h5").unlink()
    return diagnose_file(folder / "volume.h5")[0].misfit


def test_only_runs_that_came_to_their_end_are_worth_it(session):
    run = session.runs[0]
    for changes in ({"state": "stopped"}, {"loss": 1.1}, {"loss": None}):
        run.ending = run.outcome.model_copy(update=changes)
        assert not worth_it(run)
    run.ending = run.outcome.model_copy(update={"loss": float("nan")})
    assert worth_it(run)
