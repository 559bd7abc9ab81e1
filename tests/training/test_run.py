"""The training loop: exact resume, kills, out of memory, NaN, several processes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from napari_mepdiff.prior.model import Prior, PriorError
from napari_mepdiff.prior.network import PRESETS
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training import checkpoint as checkpoint_module
from napari_mepdiff.training.batch import shape_at
from napari_mepdiff.training.checkpoint import load_checkpoint
from napari_mepdiff.training.run import train
from napari_mepdiff.training.settings import TrainSettings
from napari_mepdiff.training.step import Trainer, TrainingError

from ..cli.terminal import mepdiff
from .small import SETTINGS


@pytest.fixture(scope="module")
def structures():
    return load_structures().part("validation")


def _weights(folder):
    return load_checkpoint(folder / "checkpoint.pt")


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b or (a != a and b != b)


def test_it_learns(structures, tmp_path):
    reports = list(train(SETTINGS.model_copy(update={"batch": 8}), structures, tmp_path, steps=80))
    assert len(reports) == 80
    assert reports[-1].loss < 0.85 * reports[4].loss
    assert reports[-1].samples == 640
    assert reports[-1].rate > 0
    with open(tmp_path / "log.csv") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(r["step"]) for r in rows] == [1, *range(10, 81, 10)]
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_a_resumed_run_is_bit_for_bit_the_run_that_was_never_stopped(structures, tmp_path):
    settings = SETTINGS.model_copy(update={"other_shapes": 0.4})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(settings, structures, whole, steps=9))
    list(train(settings, structures, parts, steps=4))
    list(train(None, structures, parts, steps=9, resume=True))
    assert _same(_weights(whole), _weights(parts))


def test_settings_may_change_when_a_run_is_resumed(structures, tmp_path):
    list(train(SETTINGS, structures, tmp_path, steps=3))
    changed = SETTINGS.model_copy(
        update={"weighting_mean": -5.0, "weighting_spread": 4.0, "learning_rate": 1e-4}
    )
    last = list(train(changed, structures, tmp_path, steps=5, resume=True))[-1]
    assert last.learning_rate == pytest.approx(1e-4)
    kept = _weights(tmp_path)
    assert kept["schedule"]["mean"] == -5.0
    assert TrainSettings.model_validate_json(kept["settings"]) == changed


def test_a_run_may_begin_with_an_earlier_prior(structures, tmp_path):
    list(train(SETTINGS, structures, tmp_path / "a", steps=3))
    Prior.load(tmp_path / "a").save(tmp_path / "a.safetensors", torch.float32)
    run = train(SETTINGS, structures, tmp_path / "b", steps=2, start=tmp_path / "a.safetensors")
    reports = list(run)
    assert [r.step for r in reports] == [4, 5]
    assert reports[-1].samples == 20
    assert (
        reports[0].learning_rate < SETTINGS.learning_rate
    )  # warms up again: the optimiser is fresh
    other = SETTINGS.model_copy(update={"network": PRESETS["compact"]})
    with pytest.raises(ValueError, match="another network"):
        next(train(other, structures, tmp_path / "c", start=tmp_path / "a.safetensors"))


def test_a_stopped_run_keeps_its_last_step(structures, tmp_path):
    count = 0

    def stop():
        nonlocal count
        count += 1
        return count == 3

    reports = list(train(SETTINGS, structures, tmp_path, steps=50, stop=stop))
    assert reports[-1].step == 3
    assert _weights(tmp_path)["step"] == 3


def test_an_error_keeps_the_last_step_too(structures, tmp_path):
    run = train(SETTINGS, structures, tmp_path, steps=50)
    next(run), next(run)
    with pytest.raises(KeyError):
        run.throw(KeyError("elsewhere"))
    assert _weights(tmp_path)["step"] == 2


def test_a_step_that_breaks_off_does_not_spoil_the_checkpoint(structures, tmp_path, monkeypatch):
    list(train(SETTINGS, structures, tmp_path, steps=2))
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def broken(self):
        with torch.no_grad():
            next(iter(self.network.parameters())).zero_()
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "advance", broken)
    with pytest.raises(KeyboardInterrupt):
        list(train(SETTINGS, structures, tmp_path, steps=9, resume=True))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def _command(folder, *more):
    return [
        sys.executable,
        "-m",
        "napari_mepdiff.cli",
        "train",
        "-o",
        str(folder),
        "--every",
        "0.5",
        "--threads",
        "1",
        "--set",
        f"network={SETTINGS.network.model_dump_json()}",
        "--set",
        "batch=2",
        "--set",
        "lateral=32",
        "--set",
        "slices=4",
        "--set",
        "precision=float32",
        "--set",
        "other_shapes=0",
        *more,
    ]


def test_kill_9_and_resume(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(_command(folder, "--steps", "100000"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4)  # into the steps that no checkpoint holds
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = _weights(folder)["step"]
    assert kept > 0
    code, said = mepdiff(*_command(folder, "--steps", str(kept + 30), "--resume")[3:])
    assert code == 0, said
    assert _weights(folder)["step"] == kept + 30
    with open(folder / "log.csv") as handle:
        steps = [int(r["step"]) for r in csv.DictReader(handle)]
    assert steps == sorted(set(steps))  # no step twice, none out of order
    assert set(range(10, kept + 31, 10)) <= set(steps)  # and none missing


def test_what_cannot_be_resumed_or_overwritten(structures, tmp_path):
    with pytest.raises(FileNotFoundError, match="no training run to resume"):
        next(train(SETTINGS, structures, tmp_path / "none", resume=True))
    list(train(SETTINGS, structures, tmp_path, steps=1))
    with pytest.raises(FileExistsError, match="resume it"):
        next(train(SETTINGS, structures, tmp_path, steps=1))
    other = SETTINGS.model_copy(update={"network": PRESETS["compact"]})
    with pytest.raises(ValueError, match="another network"):
        next(train(other, structures, tmp_path, resume=True))
    data = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as a training checkpoint"):
        next(train(SETTINGS, structures, tmp_path, resume=True))


def test_a_disk_that_fills_up_keeps_the_old_checkpoint(structures, tmp_path, monkeypatch):
    run = train(SETTINGS, structures, tmp_path, steps=2)
    list(run)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module.torch, "save", full)
    with pytest.raises(OSError, match="the disk is full"):
        list(train(SETTINGS, structures, tmp_path, steps=4, resume=True))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*partial*"))


def test_out_of_memory_takes_the_batch_in_pieces_with_the_same_result(structures):
    one, two = Trainer(SETTINGS, structures), Trainer(SETTINGS, structures)
    one.advance()
    original = two.gradient

    def small(*args):
        if args[-1] > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(*args)

    two.gradient = small
    two.advance()
    assert two.micro == 2
    assert "out of memory" in two.notes[0]
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)

    def never(*args):
        raise RuntimeError("CUDA out of memory")

    two.gradient = never
    with pytest.raises(MemoryError, match="not even one volume"):
        two.advance()


def test_a_batch_of_nan_is_left_out_and_ten_end_the_run(structures):
    trainer = Trainer(SETTINGS, structures)
    trainer.advance()
    before = [p.clone() for p in trainer.network.parameters()]
    original = trainer.draw

    def bad():
        batch = original()
        return batch._replace(x=batch.x * float("nan"))

    trainer.draw = bad
    trainer.advance()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    assert "no finite gradient" in trainer.notes[-1]
    for _ in range(8):
        trainer.advance()
    with pytest.raises(TrainingError, match="diverged"):
        trainer.advance()


def test_a_run_of_an_earlier_version_becomes_a_prior_once_resumed(structures, tmp_path):
    list(train(SETTINGS, structures, tmp_path, steps=2))
    state = _weights(tmp_path)
    del state["prior"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(PriorError, match="resume its run for a step"):
        Prior.load(tmp_path)
    list(train(None, structures, tmp_path, steps=3, resume=True))
    assert Prior.load(tmp_path).info["steps"] == 3


def test_a_training_folder_is_a_prior(structures, tmp_path):
    list(train(SETTINGS, structures, tmp_path, steps=3))
    prior = Prior.load(tmp_path)
    state = _weights(tmp_path)
    assert torch.equal(prior.network.stem.weight, state["average"]["stem.weight"])
    assert prior.info["samples"] == 12
    assert prior(torch.zeros(4, 32, 32), -3.0).shape == (4, 32, 32)


def test_shapes_vary_and_stay_within_what_the_network_takes():
    settings = TrainSettings(other_shapes=0.5)
    seen = {shape_at(settings, step)[0] for step in range(200)}
    assert (8, 64, 64) in seen
    assert {s[0] for s in seen} >= {4, 5, 6, 7, 8}
    assert {s[1] for s in seen} == {32, 64, 96}


def test_two_processes_train_one_network(tmp_path):
    pytest.importorskip("accelerate")
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29517",
        *_command(folder, "--steps", "6")[1:],
    ]
    out = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert out.returncode == 0, out.stderr[-2000:]
    state = _weights(folder)
    assert (state["step"], state["samples"], state["processes"]) == (6, 24, 2)
