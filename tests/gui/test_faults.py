"""What goes wrong must be said, must lose nothing, and must leave a window that works."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from qtpy.QtGui import QCloseEvent

from napari_mepdiff.base.folders import recovery_folder
from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.gui.runner import Runner
from napari_mepdiff.reconstruction import registry
from napari_mepdiff.session import recovery
from napari_mepdiff.session.runs import RunRecord
from napari_mepdiff.session.session import Session

from .conftest import small_data


def failing(error, after=3):
    """A solve that raises after some frames."""
    real = registry.solve

    def solve(*args, **kwargs):
        for n, frame in enumerate(real(*args, **kwargs)):
            yield frame
            if n == after:
                raise error

    return solve


ERRORS = (
    (RuntimeError("expected scalar type Float but found Half"), "expected scalar type"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "not enough memory"),
    (ZeroDivisionError("division by zero"), "division by zero"),
)


def test_an_error_in_the_worker_is_said_and_keeps_the_volume(desk, monkeypatch):
    from qtpy.QtGui import QGuiApplication

    desk.take()
    notice = desk.reconstruct.notice
    for error, words in ERRORS:
        with monkeypatch.context() as patch:
            patch.setattr(registry, "solve", failing(error))
            run = desk.run(steps=200)
        assert run.state == "failed"
        assert words in desk.errors[-1]
        assert "is kept" in desk.errors[-1]
        assert type(error).__name__ in desk.messages[-1][2]  # details to copy
        assert not notice.isHidden()
        assert words in notice.text.text()
        notice.copy.click()
        assert type(error).__name__ in QGuiApplication.clipboard().text()
        shown = desk.workspace.run_layers.layer_of(run).data
        np.testing.assert_array_equal(shown, run.frame.volume)
    assert desk.run().state == "done"  # and the next run goes


def test_a_file_that_cannot_be_read_changes_nothing(desk, tmp_path):
    from napari_mepdiff.measurement.samples import sample_path

    desk.take()
    data = desk.session.data
    for damage, content in {
        "empty": b"",
        "text": b"this is not HDF5 at all" * 50,
        "truncated": sample_path("mos2").read_bytes()[:20000],
    }.items():
        path = tmp_path / f"{damage}.h5"
        path.write_bytes(content)
        desk.workspace.files.open(str(path))
        desk.idle()
        assert path.name in desk.errors[-1]
        assert desk.session.data is data
    desk.workspace.files.open(str(tmp_path / "nowhere.h5"))
    desk.idle()
    assert "no such file" in desk.errors[-1]


def test_negative_and_nan_data_cannot_be_run(desk):
    from dataclasses import replace

    data = small_data()
    bad = np.array(data.data)
    bad[0, 0, 0, 0] = -4
    bad[1, 1, 2, 2] = np.nan
    desk.take(replace(data, data=bad))
    assert "negative" in desk.data.findings.text()
    assert "NaN" in desk.data.findings.text()
    run = desk.run()
    assert run.state == "failed"
    assert "cannot be reconstructed" in run.error


def test_a_layer_deleted_in_mid_run_does_not_come_back_by_itself(desk):
    desk.take()
    desk.settings(steps=4000)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: desk.workspace.run_layers.layer_of(run) is not None)
    desk.viewer.layers.remove(run.name)
    at = run.frame.step
    desk.until(lambda: run.frame.step > at + 20)
    assert run.name not in desk.viewer.layers
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)
    assert run.name not in desk.viewer.layers
    desk.click(desk.reconstruct.runs.show_button)  # nothing is lost
    np.testing.assert_array_equal(desk.viewer.layers[run.name].data, run.frame.volume)
    assert not desk.errors


@pytest.mark.parametrize("answer", ["save", "discard"])
def test_closing_the_window_in_mid_run_asks(desk, tmp_path, answer):
    desk.take()
    desk.session.change("export", folder=str(tmp_path))
    desk.settings(steps=5000)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 5)
    asked: list[tuple[RunRecord, str]] = []
    desk.workspace.window.ask = lambda r: (asked.append((r, "cancel")), "cancel")[1]
    window = desk.data.window()
    assert not window.close()
    assert window.isVisible()
    assert run.going_on
    assert list(tmp_path.glob("*_partial.h5")) == []
    desk.workspace.window.ask = lambda r: (asked.append((r, answer)), answer)[1]
    # what the window's event filter does; the fixture still needs the window
    assert not desk.workspace.window.eventFilter(window, QCloseEvent())
    assert asked == [(run, "cancel"), (run, answer)]
    desk.until(lambda: not run.going_on)
    files = list(tmp_path.glob("*_partial.h5"))
    assert len(files) == (answer == "save")
    for file in files:
        back = load_volume(file)
        np.testing.assert_array_equal(back.array, run.frame.volume)
        assert back.provenance["outcome"]["state"] == "stopped"


def test_a_crash_leaves_a_run_that_can_be_gone_on_with(desk, tmp_path, monkeypatch):
    """The state on disk of a run whose process is gone: found, shown, and gone on from."""
    from napari_mepdiff.session import thread

    monkeypatch.setattr(thread, "AUTOSAVE", 0.0)
    path = tmp_path / "small.h5"
    from napari_mepdiff.measurement.formats import own as hdf5

    hdf5.save(small_data(), path)
    desk.workspace.files.open(str(path))
    desk.until(lambda: desk.session.findings is not None)
    desk.idle()
    desk.settings(steps=40)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: run.frame is not None and run.frame.step >= 8)
    desk.click(desk.reconstruct.pause_button)
    desk.qtbot.wait(300)
    import shutil

    place = next(recovery_folder().iterdir())
    copy = recovery_folder() / "copy"
    shutil.copytree(place, copy)  # as a kill would leave it
    desk.click(desk.reconstruct.stop_button)
    desk.until(lambda: not run.going_on)
    assert not place.exists()  # a run that ended leaves nothing
    text = (copy / "run.json").read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999')
    (copy / "run.json").write_text(text)
    lost = recovery.interrupted()
    assert [r.name for r in lost] == [run.name]
    assert lost[0].volume is not None
    assert lost[0].checkpoint is not None
    desk.reconstruct.lost.go_on(lost[0])
    desk.until(lambda: len(desk.session.runs) == 2)
    second = desk.session.runs[-1]
    desk.until(lambda: not second.going_on)
    assert second.state == "done", second.error
    first = second.frames.records[0]["step"]
    assert first > 5, "it began again instead of going on"


def test_many_runs_leave_no_threads_and_no_memory(qtbot):
    session = Session()
    runner = Runner(session)
    session.take(small_data(), "small.h5")
    session.change("setup", solver="adam")
    session.change_settings("adam", iterations=3)

    def cycle(n):
        for _ in range(n):
            run = runner.start()
            qtbot.waitUntil(lambda r=run: r.frame is not None or not r.going_on)
            runner.stop()
            qtbot.waitUntil(lambda r=run: not r.going_on)
            assert run.state in ("stopped", "done"), run.error
            session.remove_run(run)

    cycle(10)
    process = psutil.Process()
    threads, memory = threading.active_count(), process.memory_info().rss
    cycle(40)
    assert threading.active_count() <= threads
    assert process.memory_info().rss - memory < 40e6
    assert session.runs == []
    assert not any(recovery_folder().iterdir())


def test_runs_in_a_viewer_leave_no_layers_and_no_threads(desk):
    desk.take()
    desk.session.change("setup", solver="adam")
    desk.session.change_settings("adam", iterations=3)
    layers, threads = len(desk.viewer.layers), threading.active_count()
    for _ in range(5):
        run = desk.workspace.start()
        desk.until(lambda r=run: not r.going_on)
        desk.session.remove_run(run)
        desk.workspace.run_layers.remove(run)
    assert len(desk.viewer.layers) == layers
    desk.idle()  # why the misfit is large is looked for beside
    assert threading.active_count() <= threads + 1
    assert desk.workspace.run_layers.layer_of(run) is None


def test_jobs_can_be_cancelled_and_the_newest_wins(desk):
    import time

    seen = []

    def slow(report):
        for n in range(200):
            report(n / 200)
            time.sleep(0.02)
        return "slow"

    jobs = desk.workspace.jobs
    jobs.run("x", "slow work", slow, seen.append)
    desk.until(lambda: desk.data.busy.isVisible() or not desk.data.isVisible())
    desk.qtbot.wait(100)
    desk.click(desk.data.busy.cancel)
    desk.until(lambda: not jobs.running)
    assert seen == []
    jobs.run("x", "slow work", slow, seen.append)
    desk.qtbot.wait(400)
    jobs.run("x", "second", lambda _r: "second", seen.append)
    jobs.run("x", "third", lambda _r: "third", seen.append)
    desk.until(lambda: not jobs.running)
    assert seen == ["third"]


def test_choices_are_remembered_and_stale_ones_dropped(desk, tmp_path):
    from napari_mepdiff.session import preferences as memory

    desk.session.change("setup", slices=6)
    desk.session.change_settings("dps", weight=3.0)
    desk.workspace.remember()
    choices, *_ = memory.load()
    assert choices.setup.slices == 6
    assert choices.settings["dps"] == {"weight": 3.0}
    path = Path(os.environ["MEPDIFF_CONFIG"])
    path.write_text(path.read_text().replace('"slices": 6', '"slices": "many"'))
    choices, *_ = memory.load()
    assert choices.setup.slices is None
    assert choices.settings["dps"] == {"weight": 3.0}
    desk.session.change_settings("dps", steps=50)
    desk.workspace.remember()
    stale = path.read_text().replace('"steps": 50', '"steps": 50, "gone": 1, "odds": "high"')
    path.write_text(stale)  # one that is gone and one of another kind cost no other
    assert memory.load()[0].settings["dps"] == {"weight": 3.0, "steps": 50}
    path.write_text("{ broken")
    assert memory.load()[0].setup.slices is None
