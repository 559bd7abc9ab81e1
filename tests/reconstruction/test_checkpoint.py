"""What a checkpoint costs a run, what it belongs to, and what it keeps when a disk fails."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction import checkpoint as checkpoints
from napari_mepdiff.reconstruction import registry
from napari_mepdiff.reconstruction.checkpoint import Checkpoint, identity, load_checkpoint
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.frame import Frame
from napari_mepdiff.reconstruction.ordinary.adam import AdamSettings
from napari_mepdiff.reconstruction.ordinary.objective import Objective
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.reconstruction.registry import solve
from napari_mepdiff.reconstruction.run import Run

from .small import crystal_problem

QUICK = AdamSettings(iterations=4, learning_rate=5e-3)


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=5)[0]


def test_copies_of_the_state_take_a_twentieth_of_the_time(problem, monkeypatch, tmp_path):
    """The whole state used to be copied after every frame, though it is saved every half minute."""
    clock = 0.0
    copies = 0

    def copied(state):
        nonlocal clock, copies
        clock, copies = clock + 1.0, copies + 1
        return state

    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock)
    monkeypatch.setattr(checkpoints, "_copied", copied)
    run = Run(problem, QUICK, Control())
    run.keep(lambda: {"step": 1, "seconds": 0.0})
    keeper = Checkpoint(tmp_path / "c", lambda: "x", every=1e9)
    frame = Frame(1, 2, np.zeros(problem.shape, np.float32), 1.0)
    for _ in range(400):
        keeper.look(run, frame)
        clock += 1.0
    spent = copies / clock
    assert 0.03 < spent < 0.06


def test_waiting_for_the_fingerprint_is_no_cost_of_a_copy(problem, monkeypatch, tmp_path):
    """After a wait of seconds no copy was made for twenty times as long."""
    clock, copies = 0.0, []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock)
    monkeypatch.setattr(checkpoints, "_copied", lambda state: copies.append(clock) or state)

    class Slow(Checkpoint):
        @property
        def identity(self):
            nonlocal clock
            clock += 0.0 if copies else 5.0
            return "x"

    run = Run(problem, QUICK, Control())
    run.keep(lambda: {"step": 1, "seconds": 0.0})
    keeper = Slow(tmp_path / "c", lambda: "x", every=1e9)
    for _ in range(3):
        keeper.look(run, Frame(1, 2, np.zeros(problem.shape, np.float32), 1.0))
        clock += 1.0
    assert copies == [5.0, 6.0, 7.0]


def test_the_first_step_does_not_wait_for_the_fingerprint(problem, tmp_path, monkeypatch):
    """Going through all patterns took seconds of a large measurement before anything happened."""
    begun = threading.Event()
    likelihood = Problem.likelihood

    def noted(self, *args, **options):
        begun.set()
        return likelihood(self, *args, **options)

    def slow(*args):
        assert begun.wait(20), "the run waits for its fingerprint"
        return identity(*args)

    monkeypatch.setattr(Problem, "likelihood", noted)
    monkeypatch.setattr(registry, "identity", slow)
    frames = list(solve(problem, QUICK, checkpoint=tmp_path / "c", every=0))
    assert frames[-1].step == 4
    assert load_checkpoint(tmp_path / "c")["identity"] == identity(problem, QUICK)


def test_a_good_state_outlives_a_full_disk_and_an_error(problem, tmp_path, monkeypatch):
    """Where a write had failed, the copy of the state was dropped, and an error left nothing."""
    whole = [f.volume for f in solve(problem, QUICK)]
    full, path, frames = True, tmp_path / "c", []
    save, misfit = checkpoints.save_checkpoint, Objective.misfit

    def write(to, state):
        if full:
            raise OSError(28, "No space left on device")
        save(to, state)

    def fails(self, volume, batch=None):
        nonlocal full
        if len(frames) == 2:
            full = False
            raise RuntimeError("the driver went away")
        return misfit(self, volume, batch)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", write)
        patch.setattr(Objective, "misfit", fails)
        with pytest.raises(RuntimeError, match="driver"):
            frames.extend(_into(solve(problem, QUICK, checkpoint=path, every=0), frames))
    assert [f.step for f in frames] == [1, 2]
    assert load_checkpoint(path)["step"] in (1, 2)  # a copy costs a step where it is dear
    rest = list(solve(problem, QUICK, checkpoint=path))
    assert rest[0].step > 1
    assert np.array_equal(rest[-1].volume, whole[-1])


def _into(frames, found):
    for frame in frames:
        found.append(frame)
    return []


def test_a_state_belongs_to_its_geometry_and_probe(problem):
    known = identity(problem, QUICK)
    assert identity(replace(problem, patterns=problem.patterns.copy()), QUICK) == known
    moved = problem.positions.copy()
    moved[-1, 0] += 1e-3
    others = [
        {"positions": moved},
        {"probe": problem.probe * torch.tensor(1.001)},
        {"energy": 200.0},
        {"slice_thickness": (1.7,) * 4},
        {"voxel_size": (1.6, 0.2, 0.201)},
        {"propagator": "exact"},
        {"band_limit": 0.6},
        {"patterns": problem.patterns.astype(np.uint16)},
    ]
    assert len({known, *(identity(replace(problem, **o), QUICK) for o in others)}) == 9
