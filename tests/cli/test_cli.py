"""The command line as a user types it, in processes of its own where signals matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write

from napari_mepdiff.export.volumes import load_volume
from tests.cli.terminal import mepdiff
from tests.reconstruction.small import shorten_sampling
from tests.session.small import prior_file, small_file

MEPDIFF = [sys.executable, "-m", "napari_mepdiff.cli"]


def _surroundings():
    """Of a process that computes the same bits as this one: with as many threads."""
    return {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": str(torch.get_num_threads())}


def run(*words, cwd, ok=True, apart=False):
    """What `mepdiff` prints; `apart` in a process of its own, as from a terminal."""
    if not apart:
        code, said = mepdiff(*words, cwd=cwd)
    else:
        out = subprocess.run(
            [*MEPDIFF, *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            env=_surroundings(),
        )
        code, said = out.returncode, out.stdout + out.stderr
    assert (code == 0) == ok, said
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A crystal that is not in the project, recorded once."""
    pytest.importorskip("abtem")
    folder = tmp_path_factory.mktemp("cli")
    write(folder / "gaas.cif", bulk("GaAs", "zincblende", a=5.653, cubic=True))
    text = run(
        "simulate",
        "gaas.cif",
        "-o",
        "gaas.h5",
        "--zone-axis",
        "1,1,0",
        "--slices",
        4,
        "--scan",
        "5,5",
        "--step",
        "1.28",
        "--detector",
        64,
        "--overfocus",
        60,
        cwd=folder,
    )
    assert "5 × 5 patterns of 64 × 64 px" in text
    return folder


def test_simulate_reconstruct_evaluate_export(folder):
    text = run("info", "gaas.h5", "--image", "look.png", cwd=folder)
    for part in ("300 kV", "21.4 mrad", "1.28 Å", "nothing wrong was found"):
        assert part in text
    assert (folder / "look.png").stat().st_size > 5000
    text = run(
        "reconstruct",
        "gaas.h5",
        "-o",
        "out.tif",
        "--solver",
        "lbfgs",
        "--set",
        "learning_rates=1",
        "--set",
        "batch=null",
        "--set",
        "iterations=2",
        "--set",
        "misfit=poisson",
        "--set",
        "line_search=true",
        cwd=folder,
    )
    assert "step 2 of 2" in text
    text = run(
        "evaluate",
        "out.tif",
        "gaas.h5",
        "--json",
        "scores.json",
        "--figure",
        "compare.png",
        cwd=folder,
    )
    assert "SSIM" in text
    scores = json.loads((folder / "scores.json").read_text())
    assert 0.5 < scores["deviance"] < 1.5
    assert scores["psnr_sum"] > 10
    assert (folder / "compare.png").stat().st_size > 5000
    written = run(
        "export",
        "out.tif",
        "part.mrc",
        "--slices",
        "1:3",
        "--y",
        "4:20",
        "--unit",
        "VA",
        cwd=folder,
    )
    assert "part.mrc.json" in written
    part = load_volume(folder / "part.mrc")
    assert part.shape == (2, 16, 32)
    assert part.unit == "V·Å"
    provenance = json.loads((folder / "out.tif.json").read_text())["provenance"]
    assert provenance["recipe"]["solver"] == "lbfgs"
    assert provenance["settings"]["misfit"] == "poisson"
    assert provenance["data"]["source"]["hash"].startswith("sha256:")
    assert "torch" in provenance["versions"]
    assert provenance["outcome"]["state"] == "done"


def test_errors_are_one_line_that_says_what_to_do(folder):
    for words, message in (
        (("reconstruct", "none.h5", "-o", "x.h5"), "no such file"),
        (("reconstruct", "gaas.h5", "-o", "x.xyz"), "choose one of"),
        (("reconstruct", "gaas.h5", "-o", "x.h5", "--solver", "magic"), "there are dps"),
        (
            ("reconstruct", "gaas.h5", "-o", "x.h5", "--solver", "lbfgs", "--set", "iterations=-1"),
            "greater than or equal to 1",
        ),
        (("reconstruct", "gaas.h5", "-o", "x.h5", "--set", "guidance=atoms"), "needs the elements"),
        (("reconstruct", "gaas.h5", "-o", "x.h5", "--elements", "Ga,Xx"), "unknown elements: Xx"),
        (
            ("reconstruct", "gaas.h5", "-o", "x.h5", "--solver", "adam", "--elements", "Ga"),
            "adam has no such setting",
        ),
        (
            ("reconstruct", "gaas.h5", "-o", "x.h5", "--solver=refine", "--set=detector_stride=2"),
            "set the detector stride to 1",
        ),
        (("reconstruct", "gaas.h5", "-o", "x.h5", "--steer", "weight=2"), "STEP:setting=value"),
        (
            ("reconstruct", "gaas.h5", "-o", "x.h5", "--slice-thickness", "2.4"),
            "choose a slice thickness of 1.6",
        ),
        (("reconstruct", "gaas.h5", "-o", "x.h5", "--set", "prior=magic"), "no prior 'magic'"),
        (("replay", "gaas.h5", "-o", "x.h5"), "does not say how it was made"),
        (("replay", "none.json", "-o", "x.h5"), "no such file"),
        (("reconstruct", "gaas.h5", "-o", "x.h5", "--step", "99"), "larger than the probe"),
        (("reconstruct", "gaas.h5", "-o", "none/x.h5"), "folder"),
        (("evaluate", "gaas.cif", "gaas.h5"), "not a format"),
        (("simulate", "gaas.cif", "-o", "y.h5", "--zone-axis", "q"), "zone axis"),
        (("info", "gaas.cif"), "neither name nor content"),
    ):
        text = run(*words, cwd=folder, ok=False)
        assert message in text, text
        assert "Traceback" not in text
    assert not list(folder.glob("x.*"))


def test_an_error_ends_the_process_with_a_code_and_without_a_traceback(tmp_path):
    text = run("info", "none.h5", cwd=tmp_path, ok=False, apart=True)
    assert "no such file" in text
    assert "Traceback" not in text
    assert run("--version", cwd=tmp_path, apart=True).strip()[0].isdigit()


def _reach(state, steps):
    """Wait until a checkpoint of at least so many steps is there; its steps."""
    from napari_mepdiff.reconstruction.checkpoint import load_checkpoint

    deadline, reached = time.monotonic() + 120, 0
    while reached < steps and time.monotonic() < deadline:
        time.sleep(0.02)
        if state.exists():
            reached = int(load_checkpoint(state)["step"])
    assert reached >= steps
    return reached


def test_samples_by_name(tmp_path: Path):
    assert "8, 64, 64" in run("info", "srtio3", "--quick", cwd=tmp_path)


QUICK = ("--slices", "4", "--set", "evaluations=10")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with the small measurement, and words for a tiny prior."""
    folder = tmp_path_factory.mktemp("small")
    small_file(folder / "small.h5")
    return folder, ("--set", f"prior={prior_file(folder / 'tiny.safetensors')}")


def test_a_steered_reconstruction_is_replayed_to_the_last_bit(small):
    folder, tiny = small
    text = run(
        "reconstruct",
        "small.h5",
        "-o",
        "steered.tif",
        *QUICK,
        *tiny,  # free voxels: no elements
        "--set",
        "steps=8",
        "--set",
        "guidance=newton",
        "--set",
        "samples=2",
        "--steer",
        "2:weight=2.5",
        "--steer",
        "5:back=3",
        "--steer",
        "3:schedule=alpha",
        cwd=folder,
    )
    assert "step 8 of 8" in text
    history = json.loads((folder / "steered.tif.json").read_text())["provenance"]
    assert history["changes"] == [
        {"step": 2, "by": "user", "settings": {"weight": 2.5}},
        {"step": 5, "by": "user", "back": 3},
        {"step": 3, "by": "user", "settings": {"schedule": "alpha"}},
    ]
    assert history["outcome"]["state"] == "done"
    assert history["settings"]["weight"] == 1.0
    spread = load_volume(folder / "steered_std.tif")
    assert spread.array.max() > 0
    assert load_volume(folder / "steered_agreement.tif").array.min() >= 0.5
    run("replay", "steered.tif.json", "-o", "again.h5", cwd=folder, apart=True)
    run("replay", "again.h5", "-o", "once_more.npy", cwd=folder)  # a replay can be replayed
    first = load_volume(folder / "steered.tif").array
    for name in ("again.h5", "once_more.npy"):
        assert np.array_equal(load_volume(folder / name).array, first)


def test_dps_with_elements_is_what_one_gets_by_default(folder, monkeypatch):
    shorten_sampling(monkeypatch.setattr)
    words = ("--elements", "Ga,As", "--set", "steps=4", "--set", "evaluations=5")
    text = run("reconstruct", "gaas.h5", "-o", "atoms.h5", *words, cwd=folder)
    assert "Diffusion posterior sampling" in text
    history = load_volume(folder / "atoms.h5").provenance
    assert history["recipe"]["solver"] == "dps"
    assert history["recipe"]["opening"]["path"] == str(folder / "gaas.h5")


def test_a_run_goes_on_after_kill_9_to_the_same_volume(small):
    folder, tiny = small
    words = (
        *QUICK,
        *tiny,
        "--set",
        "guidance=decoupled",
        "--set",
        "steps=10000",
        "--steer",
        "60:stop",
        "--every",
        "0",
    )
    run("reconstruct", "small.h5", "-o", "whole.npy", *words, cwd=folder)
    process = subprocess.Popen(
        [*MEPDIFF, "reconstruct", "small.h5", "-o", "killed.npy", *words, "--resume"],
        cwd=folder,
        env=_surroundings(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    steps = _reach(folder / "killed.npy.checkpoint", 3)
    process.kill()
    process.wait()
    assert steps < 60
    assert not (folder / "killed.npy").exists()
    assert not [p for p in folder.glob(".*partial*") if "checkpoint" not in p.name]
    text = run("reconstruct", "small.h5", "-o", "killed.npy", *words, "--resume", cwd=folder)
    assert "partial volume, step 60 of 10000" in text
    assert np.array_equal(
        load_volume(folder / "killed.npy").array, load_volume(folder / "whole.npy").array
    )


def test_prepare_preview_and_film(folder):
    import imageio.v3 as iio

    text = run(
        "reconstruct",
        "gaas.h5",
        "-o",
        "look.h5",
        "--solver",
        "adam",
        "--preview",
        "--prepare",
        "flip_x=true",
        "--prepare",
        "overfocus=80",
        "--film",
        "look.gif",
        cwd=folder,
    )
    assert "Do not publish" in text
    assert len(iio.imread(folder / "look.gif")) == 10
    recipe = load_volume(folder / "look.h5").provenance["recipe"]
    assert recipe["preview"]
    assert recipe["preparation"] == {"flip_x": True, "overfocus": 80.0}
    run("replay", "look.h5", "-o", "look_again.h5", cwd=folder)
    np.testing.assert_array_equal(
        load_volume(folder / "look_again.h5").array, load_volume(folder / "look.h5").array
    )
    assert (
        "extra"
        in run(
            "reconstruct", "gaas.h5", "-o", "x.h5", "--prepare", "nonsense=1", cwd=folder, ok=False
        ).lower()
    )
