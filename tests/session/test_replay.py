"""What a run leaves says how to make it again, and making it again gives the same volume, bit
for bit.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_mepdiff.base.extras import available
from napari_mepdiff.cli.main import app
from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.reconstruction.registry import SOLVERS
from napari_mepdiff.session import saving
from napari_mepdiff.session.replay import CannotReplay, play, read_record
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.saving import save_run
from napari_mepdiff.session.session import Session
from napari_mepdiff.session.work import work
from tests.prior.nets import tiny

from .small import QUICK, prior_file, small_file

TELL = {
    "adam": {
        "learning_rate": (1e-3, 8e-3),
        "batch": (5, 12),
        "l1": (0.1, 2.0),
        "iterations": (6, 9),
    },
    "lbfgs": {"batch": (5, 12), "l1": (0.1, 2.0), "depth_smoothing": (1.0, 20.0)},
    "ptyrad-adam": {"learning_rate": (1e-3, 8e-3), "batch": (5, 12)},
    "ptyrad-lbfgs": {"l1": (0.1, 2.0)},
    "atomic": {"penalty": (0.1, 5.0), "iterations": (9, 12), "patience": (1, 5)},
    "refine": {"volume_step": (1.0, 12.0), "position_step": (1.0, 20.0), "batch": (5, 12)},
    "dps": {"weight": (0.3, 3.0), "fraction": (0.2, 1.0), "schedule": ("alpha", "constant")},
}  # fmt: skip


def needs(solver):
    if solver.startswith("ptyrad") and not available("ptyrad"):
        pytest.skip("PtyRAD is not installed")


def session_on(path, solver, prior):
    session = Session()
    session.take(open_4dstem(path), str(path))
    session.change("setup", solver=solver, slices=4, slice_thickness=1.6)
    fields = dict(QUICK[solver])
    if solver == "dps":
        fields["prior"] = prior
    session.change_settings(solver, **fields)
    return session


class User:
    """Someone who changes, goes back, pauses and stops at random."""

    def __init__(self, run, seed):
        self.run, self.rng = run, np.random.default_rng(seed)
        self.acts = 0

    def frame(self, frame):
        control, tell = self.run.control, TELL[self.run.solver]
        choice = self.rng.random()
        if choice < 0.35:
            name = list(tell)[self.rng.integers(len(tell))]
            low, high = tell[name]
            if isinstance(low, str):
                value = (low, high)[self.rng.integers(2)]
            elif isinstance(low, int):
                value = int(self.rng.integers(low, high + 1))
            else:
                value = float(self.rng.uniform(low, high))
            control.change(**{name: value})
            self.acts += 1
        elif choice < 0.5 and SOLVERS[self.run.solver].can_go_back and self.acts < 12:
            control.back(int(self.rng.integers(0, frame.step + 1)))
            self.acts += 1
        elif choice < 0.6:
            control.pause()
            control.resume()
        elif choice < 0.66 and frame.step > 2:
            control.stop()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_random_sessions_are_played_back_bit_for_bit(measured, prior, tmp_path, solver, seed):
    """A run that was steered, taken back, stopped and begun from a layer would be called
    repeatable and not be so.
    """
    needs(solver)
    session = session_on(measured, solver, prior)
    start = None
    if seed and SOLVERS[solver].takes_start:
        start = np.random.default_rng(seed).random((4, 32, 32)).astype(np.float32) * 0.1
    run = session.new_run(start, "some layer")
    user = User(run, 7 * seed + len(solver))
    assert work(run, watch=user.frame) is None
    # what is asked for before the solver looks again is one change; nothing else is lost
    assert bool(run.control.changes) or user.acts <= 1
    saved = save_run(run, tmp_path / "out.npy")[0]
    # by the command line, from the JSON beside the volume
    again = tmp_path / "again.h5"
    shown = CliRunner().invoke(
        app, ["replay", f"{saved}.json", "-o", str(again)], catch_exceptions=False
    )
    assert shown.exit_code == 0, shown.output
    volume = load_volume(again)
    np.testing.assert_array_equal(volume.array, run.frame.volume)
    mine, theirs = run.record(), read_record(again)
    assert theirs.changes == mine.changes  # those of the solver included
    assert theirs.settings == mine.settings
    changed = {name for change in mine.change_list() for name in change.settings}
    assert (
        set(mine.fixed) == mine.settings.keys() - SOLVERS[solver].live - mine.without_effect.keys()
    )
    assert not changed & set(mine.fixed)
    assert theirs.outcome.steps == mine.outcome.steps
    assert theirs.branches == mine.branches
    # by a session, in a thread, from the record of the replay
    other = Session()
    runner = Runner(other)
    second = runner.play(theirs, folder=tmp_path)
    runner.run_to_end()
    assert second.error in ("", "stopped by the user"), second.details
    np.testing.assert_array_equal(second.frame.volume, run.frame.volume)


@pytest.mark.parametrize("solver", ["adam", "dps"])
def test_every_kept_frame_is_exported_with_its_own_record(measured, prior, tmp_path, solver):
    """An earlier frame would be exported under the record of the last one, and replay would
    give another volume.
    """
    session = session_on(measured, solver, prior)
    run = session.new_run()

    done = []

    def user(frame):
        if frame.step == 3 and not done:
            done.append(run.control.change(**({"weight": 2.5} if solver == "dps" else {"l1": 1.0})))
        if frame.step == 6 and len(done) == 1 and solver == "dps":
            done.append(run.control.back(4))

    assert work(run, watch=user) is None
    steps = [r["step"] for r in run.frames.kept]
    for number in (1, steps.index(6), len(run.frames) - 1):
        saved = save_run(run, tmp_path / f"frame{number}.h5", frame=number)[0]
        record = read_record(saved)
        assert record.shown.step == run.frames.kept[number]["step"]
        again = play(record, folder=tmp_path)
        assert work(again) is None
        np.testing.assert_array_equal(again.frame.volume, run.frames.volume(number))
    if solver == "dps":
        first, second = run.branches
        assert (first.last_step, first.back_to) == (6, 4)
        assert second.back_to is None
        assert run.frames.volume(steps.index(6)).any()  # what was left behind is still there


def test_a_volume_changed_after_the_run_says_so_and_is_not_played(measured, prior, tmp_path):
    """Values that a user painted into the layer would be published as the result of the run."""
    session = session_on(measured, "adam", prior)
    run = session.new_run()
    work(run)
    earlier = run.volume(data=np.array(run.frames.volume(2)))
    assert earlier.provenance["shown"]["number"] == 2
    assert not earlier.provenance["shown"]["altered"]
    painted = np.array(run.frame.volume)
    painted[0, 0, 0] += 1
    saved = save_run(run, tmp_path / "painted.h5", data=painted)[0]
    np.testing.assert_array_equal(load_volume(saved).array, painted)
    record = read_record(saved)
    assert record.shown.altered
    with pytest.raises(CannotReplay, match="changed after the run"):
        play(record, folder=tmp_path)


def test_a_start_that_is_gone_or_altered_is_no_start_from_nothing(measured, prior, tmp_path):
    """A run begun from a layer would be replayed from nothing, without a word."""
    session = session_on(measured, "adam", prior)
    start = np.full((4, 32, 32), 0.02, np.float32)
    run = session.new_run(start, "phase 1")
    work(run)
    volume, _, kept = save_run(run, tmp_path / "out.h5")
    assert kept.name == "out_start.h5"
    record = read_record(volume)
    np.testing.assert_array_equal(play(record, folder=tmp_path).start, start)
    content = load_volume(kept)
    kept.unlink()
    with pytest.raises(CannotReplay, match=r"out_start\.h5"):
        play(record, folder=tmp_path)
    content.array[0, 0, 0] = 1
    content.save(kept)
    with pytest.raises(CannotReplay, match="other values"):
        play(record, folder=tmp_path)
    with pytest.raises(CannotReplay, match="phase 1"):
        play(run.record(), folder=tmp_path)  # never written: nothing to begin from


def test_what_lies_beside_a_volume_is_neither_replaced_nor_left_behind(
    measured, tmp_path, monkeypatch
):
    """A night's refined microscope was replaced without a word, since its volume had been moved."""
    session = session_on(measured, "refine", None)
    run = session.new_run(np.full((4, 32, 32), 0.02, np.float32), "phase 1")
    work(run)

    def full(*_words, **_more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_volume", full)
        with pytest.raises(OSError, match="No space"):
            save_run(run, tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []
    for name in ("out_start.h5", "out_microscope.h5"):
        other = tmp_path / name
        other.write_bytes(b"of another night")
        with pytest.raises(FileExistsError, match=name):
            save_run(run, tmp_path / "out.h5")
        assert [p.name for p in tmp_path.iterdir()] == [name]
        assert other.read_bytes() == b"of another night"
        other.unlink()
    assert len(save_run(run, tmp_path / "out.h5")) == 4
    assert len(save_run(run, tmp_path / "out.h5", overwrite=True)) == 4


def test_another_file_under_the_same_name_is_refused(measured, prior, tmp_path):
    """A measurement that was replaced meanwhile would be replayed as if it were the old one."""
    path = tmp_path / "mine.h5"
    path.write_bytes(measured.read_bytes())
    session = session_on(path, "adam", prior)
    run = session.new_run()
    work(run)
    record = run.record()
    moved = path.rename(tmp_path / "moved.h5")
    assert work(play(record, path=moved)) is None
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError):
        play(record, folder=tmp_path / "elsewhere")
    small_file(path, seed=1)
    with pytest.raises(CannotReplay, match="not the file"):
        play(record)


def test_data_made_in_memory_cannot_be_replayed_and_the_record_says_so(prior, measured):
    session = Session()
    session.take(open_4dstem(measured).bin_detector(1), "")
    run = session.new_run()
    assert any("made in memory" in reason for reason in run.record().obstacles())
    session.take(open_4dstem(measured).flip_detector(True, False), str(measured))
    run = session.new_run()
    assert any("flip" in reason for reason in run.record().obstacles())


def test_records_of_earlier_versions_are_played(measured, prior, tmp_path):
    """Volumes that were made before today's records would become unrepeatable."""
    session = session_on(measured, "adam", prior)
    session.change("preparation", flip_x=True)
    run = session.new_run()

    def user(frame):
        if frame.step == 2:
            run.control.change(l1=1.0)

    work(run, watch=user)
    old = {
        "made_by": "mepdiff reconstruct",
        "recipe": {
            "file": str(measured),
            "solver": "adam",
            "slices": 4,
            "slice_thickness": 1.6,
            "calibration": {},
            "optics": {},
            "pixel_mrad": None,
            "scan": None,
            "dataset": None,
            "probe": None,
            "modes": 1,
            "start": None,
            "device": "cpu",
            "preparation": {"flip_x": True},
            "preview": False,
        },
        "solver": "adam",
        "settings": run.first.model_dump(mode="json"),
        "steps": 8,
        "planned": 8,
        "loss": 1.0,
        "seconds": 1.0,
        "changes": [[2, {"l1": 1.0}]],
        "notes": [],
        "device": "cpu",
        "complete": True,
        "versions": {},
    }
    path = tmp_path / "old.tif.json"
    path.write_text(json.dumps({"provenance": old}))
    again = play(read_record(path))
    assert work(again) is None
    np.testing.assert_array_equal(again.frame.volume, run.frame.volume)
    old["started_from"] = "run 1"
    path.write_text(json.dumps({"provenance": old}))
    with pytest.raises(CannotReplay, match="was not kept"):  # earlier versions did not keep it
        play(read_record(path))


def test_another_prior_under_the_same_name_is_refused(measured, tmp_path):
    """A network that was trained on would give another volume under the old record."""
    path = prior_file(tmp_path / "mine.safetensors")
    session = session_on(measured, "dps", path)
    run = session.new_run()
    work(run)
    record = run.record()
    assert work(play(record)) is None
    tiny(seed=3).save(path)
    with pytest.raises(CannotReplay, match="prior"):
        play(record)


def test_a_refined_microscope_serves_the_next_run_and_is_part_of_its_record(measured, tmp_path):
    """The refined probe and positions would be lost with the window."""
    session = session_on(measured, "refine", None)
    run = session.new_run()
    work(run)
    written = save_run(run, tmp_path / "out.h5")
    place = tmp_path / "out_microscope.h5"
    assert place in written
    session.change("setup", solver="adam", microscope=str(place))
    session.change_settings("adam", **QUICK["adam"])
    second = session.new_run()
    work(second)
    assert second.problem is not None
    probe = second.problem.probe.numpy()
    np.testing.assert_allclose(probe, run.frame.info.probe, rtol=1e-4, atol=1e-4)
    again = play(second.record())
    work(again)
    np.testing.assert_array_equal(again.frame.volume, second.frame.volume)
    place.write_bytes(b"something else")
    with pytest.raises(CannotReplay, match="out_microscope"):
        play(second.record())
