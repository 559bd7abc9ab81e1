"""Whatever ends a run: its last good volume and a state to go on from stay."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction import checkpoint as checkpoints
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.reconstruction.registry import SOLVERS, solve

from ..conftest import ROOT
from ..prior.nets import tiny
from .small import ELEMENTS, crystal_problem
from .test_capabilities import CASES, needs, same

pytestmark = pytest.mark.usefixtures("short_sampling")


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=4, columns=4)[0]


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    tiny().save(path, torch.float32)
    return str(path)


DPS = {
    "dps-atoms": {"guidance": "atoms", "elements": ELEMENTS, "passes": 2},
    "dps-decoupled": {"guidance": "decoupled"},
    "dps-auto": {"guidance": "auto", "condition": "none"},
}
NAMES = [*CASES, *DPS]
assert {"dps" if n in DPS else n for n in NAMES} == set(SOLVERS)  # none is left out


def settings_of(name, prior):
    needs(name)
    if name in DPS:
        fields = {"steps": 5, "evaluations": 10, "precision": "float32", "prior": prior}
        return SOLVERS["dps"].default(**{**fields, **DPS[name]})
    return CASES[name].settings()


def collect(frames, into):
    for frame in frames:
        into.append(frame)


class Faulty:
    """A likelihood that fails at its n-th evaluation, as physics, a driver or a user may."""

    def __init__(self, monkeypatch, error, at):
        self.calls, self.error, self.at = 0, error, at
        original = Problem.likelihood

        def likelihood(problem, *args, **options):
            found = original(problem, *args, **options)
            for name in ("__call__", "loss", "gradients"):
                self._spoil(monkeypatch, type(found), name)
            return found

        self._spoilt: set[tuple[type, str]] = set()
        monkeypatch.setattr(Problem, "likelihood", likelihood)

    def _spoil(self, monkeypatch, kind, name):
        if (kind, name) in self._spoilt or not hasattr(kind, name):
            return
        self._spoilt.add((kind, name))
        original = getattr(kind, name)

        def spoilt(this, *args, **options):
            self.calls += 1
            if self.calls == self.at:
                raise self.error
            return original(this, *args, **options)

        monkeypatch.setattr(kind, name, spoilt)


ERRORS = [
    RuntimeError("the driver went away"),
    ValueError("windows of (32, 32) pixels stick out"),
    MemoryError("no memory left"),
    torch.OutOfMemoryError("simulated"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_any_step_leaves_volume_and_state(name, problem, prior, tmp_path, monkeypatch):
    """An exception that no solver foresaw used to take a whole night's volume with it."""
    settings = settings_of(name, prior)
    whole = [f.volume for f in solve(problem, settings)]
    with monkeypatch.context() as patch:
        count, played, reached = Faulty(patch, RuntimeError("never"), 0), [], [0]
        for frame in solve(problem, settings):
            played.append(frame.volume)
            reached.append(count.calls)
        assert same(played, whole)
    # an evaluation in the middle of each step, where it has any
    steps = [n for n in range(len(whole)) if reached[n + 1] > reached[n]]
    assert len(steps) > len(whole) / 2
    for n in steps:
        at = (reached[n] + reached[n + 1] + 1) // 2
        error = ERRORS[(n + NAMES.index(name)) % len(ERRORS)]
        path, got = tmp_path / f"{at}.checkpoint", []
        with monkeypatch.context() as patch:
            Faulty(patch, error, at)
            with pytest.raises(type(error)):
                collect(solve(problem, settings, checkpoint=path, every=0), got)
        assert same([f.volume for f in got], whole[:n])
        if not path.exists():  # it failed before the first frame
            assert not got or all(f.step == 0 for f in got)
            continue
        state = checkpoints.load_checkpoint(path)
        assert np.array_equal(state["shown"].numpy(), got[-1].volume)
        rest = list(solve(problem, settings, checkpoint=path))
        assert np.array_equal(rest[-1].volume, whole[-1]), f"step {n}"


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_never_ends_a_run(name, problem, prior, tmp_path, monkeypatch):
    settings = settings_of(name, prior)
    whole = [f.volume for f in solve(problem, settings)]

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_checkpoint", full)
    control = Control()
    frames = list(solve(problem, settings, control, checkpoint=tmp_path / "c", every=0))
    assert same([f.volume for f in frames], whole)
    told = [note for note in control.notes if "No space left" in note]
    assert len(told) == 1


KILLED = """
    import os, signal, sys
    import numpy as np, torch
    sys.path.insert(0, {root!r})
    torch.set_num_threads(1)
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve
    from tests.reconstruction.small import crystal_problem, shorten_sampling
    from tests.reconstruction.test_trouble import settings_of

    prior, folder, *names = sys.argv[1:]
    shorten_sampling()
    problem = crystal_problem(scan=4, columns=4)[0]
    for name in names:  # each in a process of its own, before this one has any threads
        child = os.fork()
        if not child:
            settings = settings_of(name, prior)
            for frame in solve(problem, settings, checkpoint=f"{{folder}}/{{name}}", every=0):
                if frame.step == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, name
    for name in names:
        settings = settings_of(name, prior)
        whole = list(solve(problem, settings))[-1]
        rest = list(solve(problem, settings, checkpoint=f"{{folder}}/{{name}}"))
        assert rest[0].step > 2, name
        assert np.array_equal(rest[-1].volume, whole.volume), name
"""


def test_a_killed_run_goes_on_to_the_same_end(prior, tmp_path):
    """Bit for bit, as if nothing had happened; power failures come without warning."""
    code = textwrap.dedent(KILLED.format(root=str(ROOT)))
    names = ["adam", "lbfgs", "atomic", "refine", "dps-auto", "dps-decoupled", "dps-atoms"]
    done = subprocess.run(
        [sys.executable, "-c", code, prior, str(tmp_path), *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_state_belongs_to_its_data_mask_and_start(problem, tmp_path):
    """It used to go on with other patterns or another mask without a word."""
    from dataclasses import replace

    settings = SOLVERS["adam"].default(iterations=2)
    path, start = tmp_path / "c", np.full(problem.shape, 0.01, np.float32)
    list(solve(problem, settings, checkpoint=path, start=start))
    assert len(list(solve(problem, settings, checkpoint=path, start=start))) == 1
    for n in range(len(problem.patterns)):  # one count more in any one pattern
        patterns = problem.patterns.copy()
        patterns[n, 3, 4] += 1
        with pytest.raises(ValueError, match="belongs to another run"):
            next(solve(replace(problem, patterns=patterns), settings, checkpoint=path, start=start))
    mask = np.ones(problem.patterns.shape[1:], np.float32)
    mask[5, 6] = 0
    others = [
        (replace(problem, mask=mask), settings, start),
        (problem, settings, start + 0.001),
        (problem, settings, None),
        (problem, settings.model_copy(update={"learning_rate": 1e-4}), start),
    ]
    for data, wanted, first in others:
        with pytest.raises(ValueError, match="belongs to another run"):
            next(solve(data, wanted, checkpoint=path, start=first))
