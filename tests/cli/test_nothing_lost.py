"""At the terminal, too: whatever ends a run, the volume, its record and the reason are there,
or it never began.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_mepdiff.cli.main import app
from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.reconstruction import registry
from napari_mepdiff.session import saving
from tests.cli.terminal import mepdiff
from tests.session.small import QUICK, prior_file, small_file


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return small_file(tmp_path_factory.mktemp("measured") / "small.h5")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return prior_file(tmp_path_factory.mktemp("prior") / "tiny.safetensors")


def words(measured, output, solver="adam", prior=None, **more):
    fields = {**QUICK[solver], **({"prior": prior} if solver == "dps" else {}), **more}
    out = ["reconstruct", str(measured), "-o", str(output), "--solver", solver, "--slices", "4"]
    for name, value in fields.items():
        out += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return out


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "atomic", "refine", "dps"])
@pytest.mark.parametrize("error", [ValueError, RuntimeError, MemoryError, AssertionError])
def test_an_error_in_mid_run_leaves_the_volume_and_the_reason(
    measured, prior, tmp_path, monkeypatch, solver, error
):
    """Sixteen of forty iterations would be lost because a window sticks out of the canvas."""
    real = registry.solve

    def solve(*arguments, **more):
        for n, frame in enumerate(real(*arguments, **more), 1):
            yield frame
            if n == 2:
                raise error("windows stick out by 1 px")

    monkeypatch.setattr(registry, "solve", solve)
    output = tmp_path / "out.h5"
    code, said = mepdiff(*words(measured, output, solver, prior))
    assert code == 1
    assert "windows stick out by 1 px" in said
    assert "partial volume, step" in said
    assert "Traceback" not in said
    outcome = load_volume(output).provenance["outcome"]
    assert outcome["state"] == "failed"
    assert "windows stick out" in outcome["reason"]
    assert json.loads((tmp_path / "out.h5.json").read_text())["provenance"]["outcome"] == outcome


@pytest.mark.skipif(os.name != "posix", reason="rights of folders")
def test_a_folder_that_cannot_be_written_is_said_before_the_run(measured, tmp_path, monkeypatch):
    """A read-only output would be found out after the night, and the volume be lost."""
    from napari_mepdiff.base import files

    def refused(*_words, **_more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.tempfile, "mkstemp", refused)
    monkeypatch.setattr(registry, "solve", lambda *a, **m: pytest.fail("it began"))
    code, said = mepdiff(*words(measured, tmp_path / "out.h5"))
    assert code == 1
    assert "nothing can be written in the folder" in said
    assert "choose another one" in said


def test_a_disk_that_is_full_at_the_end_sends_the_volume_elsewhere(measured, tmp_path, monkeypatch):
    """A full disk at the end of a run would cost the run."""
    data = tmp_path / "data" / "small.h5"
    data.parent.mkdir()
    data.write_bytes(measured.read_bytes())
    target = tmp_path / "out"
    target.mkdir()
    real = saving.save_volume

    def full(volume, path, **more):
        if path.parent == target:
            raise OSError(errno.ENOSPC, "the disk is full", str(path))
        return real(volume, path, **more)

    monkeypatch.setattr(saving, "save_volume", full)
    code, said = mepdiff(*words(data, target / "out.h5"))
    assert code == 0
    place = data.parent / "out.h5"
    assert f"the volume is in {place} instead" in said
    assert load_volume(place).provenance["outcome"]["state"] == "done"


def test_a_run_from_a_start_file_names_it_and_is_replayed_from_it(measured, tmp_path):
    """A replay that began elsewhere than the run would give another volume."""
    start = tmp_path / "start.npy"
    np.save(start, np.full((4, 32, 32), 0.02, np.float32))
    code, said = mepdiff(*words(measured, tmp_path / "out.h5"), "--start", start)
    assert code == 0, said
    recipe = load_volume(tmp_path / "out.h5").provenance["recipe"]
    assert recipe["start"]["file"] == str(start)
    code, said = mepdiff("replay", tmp_path / "out.h5", "-o", tmp_path / "again.h5")
    assert code == 0, said
    np.testing.assert_array_equal(
        load_volume(tmp_path / "again.h5").array, load_volume(tmp_path / "out.h5").array
    )


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_and_saves(measured, tmp_path, number):
    """A batch system that ends the job would take the volume with it."""
    process = _start(measured, tmp_path)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "partial volume, step" in text
    volume = load_volume(tmp_path / "out.h5")
    assert volume.provenance["outcome"]["state"] == "stopped"
    assert 0 < volume.provenance["outcome"]["steps"] < 100000
    assert np.abs(volume.array).max() > 0


SLOW = """
import sys, time
from napari_mepdiff.reconstruction import registry
real = registry.solve
def solve(*words, **more):
    for frame in real(*words, **more):
        yield frame
        if frame.step == 3:
            print("step three", flush=True)
            for _ in range(600):
                time.sleep(0.1)
registry.solve = solve
from napari_mepdiff.cli.main import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_second_signal_ends_a_long_step_at_once_and_saves(measured, tmp_path):
    """One who cannot wait for a step of a minute would lose the volume."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words(measured, tmp_path / "out.h5", iterations=1000)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if "step three" in line:
            break
    process.send_signal(signal.SIGINT)
    for line in process.stdout:
        if "stopping after this step" in line:
            break
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=50)  # the step itself would take a minute
    assert process.returncode == 130, text
    assert "partial volume, step 3" in text
    outcome = load_volume(tmp_path / "out.h5").provenance["outcome"]
    assert (outcome["state"], outcome["steps"]) == ("stopped", 3)
    assert "interrupted by the user" in outcome["reason"]


def _start(measured, folder):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "napari_mepdiff.cli",
            *words(measured, folder / "out.h5", iterations=100000),
            "--checkpoint",
            str(folder / "state"),
            "--every",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / "state").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def test_what_has_no_effect_or_cannot_be_changed_is_refused_before_anything_is_read(
    measured, tmp_path, monkeypatch
):
    """A setting would be recorded that did nothing, or a change refused after hours."""
    from napari_mepdiff.session.recipe import Opening

    monkeypatch.setattr(Opening, "open", lambda *a, **m: pytest.fail("the patterns were opened"))
    output = tmp_path / "out.h5"
    for more, message in (
        (["--steer", "3:misfit=amplitude"], "misfit cannot change now"),
        (["--steer", "3:back=1"], "keeps no earlier states"),
        (["--steer", "3:iterations=0"], "greater than or equal to 1"),
        (["--set", "nonsense=1"], "adam has no such setting"),
        (["--prepare", "nonsense=1"], "extra"),
        (["--energy", "-3"], "greater than 0"),
    ):
        code, said = mepdiff(*words(measured, output), *more)
        assert code == 1, said
        assert message in said.replace("Extra", "extra"), said
    code, said = mepdiff(
        *words(measured, output, "refine", probe="fixed", positions="fixed", max_shift=0.5)
    )
    assert code == 1
    assert "max_shift has no effect here" in said
    assert not output.exists()


def test_a_misfit_far_above_shot_noise_is_a_warning_and_is_recorded(measured, tmp_path):
    """A run that ends at eight times the shot noise would say it is done."""
    output = tmp_path / "out.h5"
    code, said = mepdiff(*words(measured, output, iterations=1, learning_rate=1e-6))
    assert code == 0
    record = load_volume(output).provenance
    assert record["outcome"]["loss"] > 3
    assert f"warning: {record['outcome']['verdict']}" in said
    assert "A few more steps of the volume alone" in said  # what a run of one step lacks


def test_a_damaged_data_file_is_not_scored_in_silence(measured, tmp_path):
    """Metrics without the misfit would look as if it did not matter."""
    output = tmp_path / "out.h5"
    assert mepdiff(*words(measured, output))[0] == 0
    bad = tmp_path / "bad.h5"
    content = measured.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    code, said = mepdiff("evaluate", output, output, "--data", measured)
    assert code == 0, said
    assert "no misfit over" not in said
    truth = tmp_path / "truth.h5"
    load_volume(measured).save(truth)
    code, said = mepdiff("evaluate", output, truth, "--data", bad)
    assert code == 0, said
    assert "no misfit over shot noise: bad.h5" in said


def test_options_of_the_preparation_are_those_of_its_model(measured, tmp_path):
    """Each field of the preparation is an option by its name, and is in the record."""
    shown = CliRunner().invoke(app, ["reconstruct", "--help"])
    for option in ("--energy", "--flip-y", "--phi12", "--scan-rotation", "--cs"):
        assert option in shown.output
    output = tmp_path / "out.h5"
    code, said = mepdiff(*words(measured, output), "--flip-y", "--overfocus", "80", "--bin", "1")
    assert code == 0, said
    recipe = load_volume(output).provenance["recipe"]
    assert recipe["preparation"] == {"flip_y": True, "overfocus": 80.0}
