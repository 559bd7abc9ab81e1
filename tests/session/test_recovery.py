"""Whatever ends a run, what there is stays on disk with the reason, and belongs to the right
measurement.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from napari_mepdiff.base.folders import recovery_folder
from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.reconstruction import registry
from napari_mepdiff.reconstruction.registry import SOLVERS
from napari_mepdiff.session import recovery, saving
from napari_mepdiff.session.recovery import Keeper, interrupted
from napari_mepdiff.session.replay import CannotReplay, play, read_record
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.session import Session
from napari_mepdiff.session.work import work

from .small import QUICK, small_file
from .test_replay import needs, session_on

PROGRAM = """
import sys
from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.session import thread
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.session import Session
thread.AUTOSAVE = 0.0
session = Session()
session.take(open_4dstem(sys.argv[1]), sys.argv[1])
session.change("setup", solver="adam", slices=4)
session.change("preparation", flip_x=True)
session.change_settings("adam", iterations=100000, learning_rate=5e-3)
import numpy as np
run = Runner(session)
run.start(np.full((4, 32, 32), 0.01, np.float32))
print("begun", flush=True)
run.run_to_end()
"""

GO_ON = """
from napari_mepdiff.session import thread
from napari_mepdiff.session.recovery import interrupted
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.session import Session
thread.AUTOSAVE = 0.0
(lost,) = interrupted()
run = Runner(Session())
run.go_on(lost, lost.record.recipe.opening.open())
run.run_to_end()
"""


def killed(program, *words, beyond=0):
    """What a program leaves that is killed in mid-run, after so many steps."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL, env={**os.environ}
    )
    deadline = time.monotonic() + 120
    place = None
    while time.monotonic() < deadline and place is None:
        time.sleep(0.1)
        for p in recovery_folder().glob("*"):
            there = (p / "volume.h5").exists() and (p / "state.checkpoint").exists()
            if there and json.loads((p / "run.json").read_text())["pid"] == process.pid:
                record = json.loads((p / "run.json").read_text())["record"]
                place = p if record["outcome"]["steps"] > beyond else None
    process.kill()
    process.wait()
    assert place is not None
    return place


@pytest.fixture(scope="session")
def one_lost_run(measured, tmp_path_factory):
    """What a program left that was killed in mid-run."""
    folder = tmp_path_factory.mktemp("lost")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEPDIFF_RECOVERY", str(folder))
        return killed(PROGRAM, str(measured))


@pytest.fixture
def lost_run(one_lost_run):
    """The same where lost runs are looked for: each test has its own."""
    place = recovery_folder() / one_lost_run.name
    shutil.copytree(one_lost_run, place)
    return place


@pytest.mark.usefixtures("lost_run")
def test_a_killed_run_is_gone_on_with_on_its_own_measurement(tmp_path):
    """The next file that was opened would have got the lost run's choices, and its run."""
    (lost,) = interrupted()
    assert lost.reason == "the program ended while it went on"
    assert lost.record.recipe.preparation.flip_x
    np.testing.assert_array_equal(lost.start_array(), np.full((4, 32, 32), 0.01, np.float32))
    reached = load_volume(lost.volume).provenance["outcome"]["steps"]
    assert reached >= 1
    session = Session()
    runner = Runner(session)
    other = small_file(tmp_path / "other.h5", seed=3)
    with pytest.raises(CannotReplay, match="not the file"):
        runner.go_on(lost, open_4dstem(other))
    session.take(open_4dstem(other), str(other))
    assert session.choices.preparation.changed == {}  # another measurement: nothing of it
    assert session.active is None
    assert not runner.busy
    run = runner.go_on(lost, lost.record.recipe.opening.open())
    while run.frame is None and runner.poll():
        time.sleep(0.005)
    assert run.frame.step > reached - 1
    assert session.choices.preparation.flip_x
    runner.stop()
    assert runner.wait(60)
    assert run.state == "stopped", run.details
    assert run.record().resumed
    assert interrupted() == []  # its state has served


def test_a_run_that_is_gone_on_with_and_killed_again_is_one_lost_run(lost_run):
    """It left two folders: the newer without a state to go on from, the older with a volume and a
    record that were not those of its state, and open to a second window all the while."""
    (first,) = interrupted()
    killed(GO_ON, beyond=first.record.outcome.steps + 1)
    assert list(recovery_folder().iterdir()) == [lost_run]
    (again,) = interrupted()
    reached = again.record.outcome.steps
    assert reached > first.record.outcome.steps
    assert load_volume(again.volume).provenance["outcome"]["steps"] >= reached - 1
    runner = Runner(Session())
    run = runner.go_on(again, again.record.recipe.opening.open())
    while run.frame is None and runner.poll():
        time.sleep(0.005)
    assert run.frame.step > reached
    assert interrupted() == []  # nobody else is offered what this run is writing
    with pytest.raises(ValueError, match="another window goes on with it"):
        Runner(Session()).go_on(again, run.data)
    runner.stop()
    assert runner.wait(60)
    assert not list(recovery_folder().iterdir())
    played = play(run.record(), start=run.start)
    assert work(played) is None
    np.testing.assert_array_equal(played.frames.last.volume, run.frame.volume)


@pytest.mark.usefixtures("lost_run")
def test_a_lost_run_that_cannot_be_gone_on_with_stays_as_it_was(monkeypatch):
    """A failure before the first step would put an empty record beside its volume and state."""
    (lost,) = interrupted()

    def refuse(*_words, **_more):
        raise ValueError("the state belongs to another run")

    monkeypatch.setattr(registry, "solve", refuse)
    runner = Runner(Session())
    run = runner.go_on(lost, lost.record.recipe.opening.open())
    runner.run_to_end()
    assert run.state == "failed"
    (still,) = interrupted()
    assert still.place == lost.place
    assert "belongs to another run" in still.reason
    assert still.record.outcome.steps == lost.record.outcome.steps
    assert still.volume is not None
    assert still.checkpoint is not None


def test_a_program_that_ends_in_mid_run_leaves_the_run_to_go_on_with(measured):
    """A script came to its end, or was ended by an error of its own: the run went with it."""
    program = PROGRAM.replace(
        "run.run_to_end()", "while run.newest is None: run.poll()\nraise SystemExit(3)"
    )
    words = [sys.executable, "-c", program, str(measured)]
    assert subprocess.run(words, env={**os.environ}, timeout=120).returncode == 3
    (lost,) = interrupted()
    assert lost.reason == "the program ended while it went on"
    assert lost.checkpoint is not None
    reached = lost.record.outcome.steps
    assert load_volume(lost.volume).provenance["outcome"]["steps"] == reached >= 1


def test_lists_of_patterns_are_opened_again_as_they_were(measured, tmp_path):
    """A list of patterns without its scan shape could not be recovered."""
    data = open_4dstem(measured)
    path = tmp_path / "list.npy"
    np.save(path, np.asarray(data.data).reshape(25, 32, 32))
    session = Session()
    options = {"scan_shape": (5, 5), "calibration": {"pixel_size": 1 / 6.4, "energy": 300.0}}
    session.take(open_4dstem(path, **options), str(path), **options)
    session.change("setup", solver="adam")
    run = session.new_run()
    record = type(run.record()).from_provenance(
        json.loads(json.dumps(run.record().as_provenance()))
    )
    again = record.recipe.opening.open()
    assert again.shape == (5, 5, 32, 32)
    assert again.calibration == session.raw.calibration


def test_two_runs_begun_in_the_same_second_have_places_of_their_own(measured, monkeypatch):
    """Two windows would write into one folder, and lose one of the runs."""
    monkeypatch.setattr(recovery.time, "strftime", lambda _f: "20260101-000000")
    session = session_on(measured, "adam", None)
    keepers = [Keeper(session.new_run(), 0.0) for _ in range(3)]
    assert len({k.place for k in keepers}) == 3


def test_a_process_number_that_is_used_again_does_not_hide_a_lost_run(measured):
    """After a restart another program may have the number: the lost run would never be offered."""
    session = session_on(measured, "adam", None)
    run = session.new_run()
    keeper = Keeper(run, 0.0)

    def look(frame):
        keeper.look()
        if frame.step == 2:
            run.control.stop()

    work(run, keeper=None, watch=look)
    assert interrupted() == []  # this program still runs
    path = keeper.place / "run.json"
    content = json.loads(path.read_text())
    content["process_began"] -= 1000.0
    path.write_text(json.dumps(content))
    (lost,) = interrupted()
    assert lost.name == run.name


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("at", [1, 3])
def test_an_error_in_any_step_of_any_solver_keeps_volume_record_and_reason(
    measured, prior, monkeypatch, solver, at
):
    """A run that ended with an unforeseen error would leave nothing."""
    needs(solver)
    real = registry.solve

    def solve(*words, **more):
        for n, frame in enumerate(real(*words, **more), 1):
            yield frame
            if n == at:
                raise RuntimeError("windows stick out of the canvas")

    monkeypatch.setattr(registry, "solve", solve)
    session = session_on(measured, solver, prior)
    errors = []
    session.message.connect(lambda level, text, _d: errors.append(text) if level == "error" else 0)
    runner = Runner(session)
    run = runner.start()
    runner.run_to_end()
    assert run.state == "failed"
    assert "windows stick out" in run.outcome.reason
    assert f"step {run.frame.step} is kept" in errors[-1]
    (lost,) = interrupted()
    assert "windows stick out" in lost.reason
    kept = load_volume(lost.volume)
    np.testing.assert_array_equal(kept.array, run.frame.volume)
    assert kept.provenance["outcome"]["state"] == "failed"
    assert kept.provenance["settings"] == run.first.model_dump(mode="json")


def test_the_record_that_a_lost_run_left_can_be_played(measured, monkeypatch):
    """What recovery keeps is the record that command line and docks play, its start included."""
    real = registry.solve

    def solve(*words, **more):
        for frame in real(*words, **more):
            yield frame
            if frame.step == 3:
                raise RuntimeError("the driver went away")

    session = session_on(measured, "adam", None)
    run = session.new_run(np.full((4, 32, 32), 0.01, np.float32), "some layer")
    run.settle()
    with monkeypatch.context() as patch:
        patch.setattr(registry, "solve", solve)
        assert work(run, keeper=Keeper(run, 0.0)) is not None
    (lost,) = interrupted()
    again = play(read_record(lost.place / "run.json"), folder=lost.place)
    assert work(again) is None
    assert again.frame.step == 3
    np.testing.assert_array_equal(again.frame.volume, run.frame.volume)


def test_an_error_before_the_first_step_is_said_and_leaves_no_thread(measured):
    session = session_on(measured, "adam", None)
    session.change("setup", device="cuda:77")
    runner = Runner(session)
    run = runner.start()
    runner.run_to_end()
    assert run.state == "failed"
    assert run.error
    assert interrupted() == []
    session.change("setup", device="cpu")
    second = runner.start()
    runner.run_to_end()
    assert second.state == "done"


def test_a_full_disk_costs_no_run_and_is_said(measured, monkeypatch):
    """A disk that fills up during the night would end the run, or be kept secret."""

    def full(*_words, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recovery, "atomic", full)
    session = session_on(measured, "adam", None)
    said = []
    session.message.connect(lambda _l, text, _d: said.append(text))
    runner = Runner(session)
    run = runner.start()
    runner.run_to_end()
    assert run.state == "done"
    assert any("No space left" in text for text in said)


def test_a_partial_volume_goes_elsewhere_when_its_place_is_full(measured, tmp_path, monkeypatch):
    """The volume of a night would be lost because the export folder is full or read-only."""
    home = tmp_path / "home"
    home.mkdir()
    data = tmp_path / "data" / "small.h5"
    data.parent.mkdir()
    data.write_bytes(measured.read_bytes())
    monkeypatch.setattr(saving.Path, "home", lambda: home)
    real = saving.save_volume

    def full(volume, path, **more):
        if path.parent != home:
            raise OSError(errno.ENOSPC, "the disk is full", str(path))
        return real(volume, path, **more)

    monkeypatch.setattr(saving, "save_volume", full)
    session = session_on(data, "adam", None)
    session.change_settings("adam", iterations=100_000)
    said = []
    session.message.connect(lambda _l, text, _d: said.append(text))
    runner = Runner(session)
    run = runner.start()
    while run.frame is None:
        runner.poll()
    (tmp_path / "out").mkdir()
    runner.stop(tmp_path / "out" / "partial.h5")
    assert runner.wait(60)
    assert run.saved[0] == home / "partial.h5"
    np.testing.assert_array_equal(load_volume(run.saved[0]).array, run.frame.volume)
    assert any(str(home / "partial.h5") in text for text in said)


def test_what_an_earlier_version_left_is_still_offered(measured):
    place = recovery_folder() / "20250101-000000-1-1"
    place.mkdir(parents=True)
    session = session_on(measured, "adam", None)
    run = session.new_run()
    work(run)
    run.volume().save(place / "volume.h5")
    description = {
        "pid": 999999999,
        "name": "run 1 · Adam",
        "path": str(measured),
        "started": 1.0,
        "choices": {
            "setup": {
                "solver": "adam",
                "slices": 4,
                "slice_thickness": None,
                "modes": 1,
                "device": "cpu",
                "start": "",
                "preview": False,
            },
            "preparation": session.choices.preparation.model_dump(mode="json"),
        },
        "settings": QUICK["adam"],
        "solver": "adam",
    }
    (place / "run.json").write_text(json.dumps(description))
    (lost,) = interrupted()
    assert lost.name == "run 1 · Adam"
    assert lost.record.recipe.slices == 4
