"""Stop, pause and the way back within a long step: nobody waits minutes for them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.reconstruction.control import Control, Interrupted
from napari_mepdiff.reconstruction.diffusion.dps import DPSSettings
from napari_mepdiff.reconstruction.registry import solve

from ..prior.nets import tiny
from .small import ELEMENTS, crystal_problem
from .test_capabilities import CASES, needs


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    tiny().save(path, torch.float32)
    return str(path)


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=5)[0]


class Asked(Control):
    """Counts how often a solver asks within its steps, and acts at one of these times."""

    def __init__(self, act=None, at=-1):
        super().__init__()
        self.count, self.act, self.at = 0, act, at

    def breathe(self, back=True):
        self.count += 1
        if self.count == self.at and self.act is not None:
            self.act(self)
        super().breathe(back)


def settings(prior, kind, **fields):
    given = {"guidance": kind, "steps": 4, "evaluations": 5, "precision": "float32"}
    if kind == "atoms":
        given |= {"elements": ELEMENTS, "passes": 1}
    return DPSSettings(**{**given, "prior": prior, **fields})


@pytest.mark.parametrize("kind", ["atoms", "newton", "decoupled", "adam"])
def test_a_stop_in_mid_step_leaves_the_last_whole_frame(prior, problem, kind, tmp_path):
    """Stop in a wide field took 145 s, without a word. The state that is kept is that of the last
    whole step: the run goes on from it to the volume that it would have had."""
    s = settings(prior, kind)
    whole, counts, control = [], [], Asked()
    for frame in solve(problem, s, control):
        whole.append(frame)
        counts.append(control.count)
    assert counts[-1] - counts[-2] > 10  # asked again and again within a step
    between = (counts[-2] + counts[-1]) // 2  # within the last step
    stopped = Asked(lambda c: c.stop(), between)
    path = tmp_path / "state"
    seen = list(solve(problem, s, stopped, checkpoint=path, every=0))
    assert seen[-1].step == whole[-2].step
    assert stopped.count <= between + 70  # chains side by side ask once more each
    assert np.array_equal(seen[-1].volume, whole[-2].volume)
    rest = list(solve(problem, s, checkpoint=path))
    assert np.array_equal(rest[-1].volume, whole[-1].volume)


@pytest.mark.parametrize("name", list(CASES))
def test_ordinary_solvers_stop_in_mid_step_too(name, problem, tmp_path):
    """A pass over a wide field takes minutes; refinements and PtyRAD's engine came to its end."""
    needs(name)
    s = CASES[name].settings()
    whole, counts, control = [], [], Asked()
    for frame in solve(problem, s, control):
        whole.append(frame)
        counts.append(control.count)
    within = counts[-2] + max(1, (counts[-1] - counts[-2]) // 2)
    assert within <= counts[-1], "it does not ask within a step"
    stopped, path = Asked(lambda c: c.stop(), within), tmp_path / "state"
    seen = list(solve(problem, s, stopped, checkpoint=path, every=0))
    assert [f.step for f in seen] == [f.step for f in whole[:-1]]
    assert np.array_equal(seen[-1].volume, whole[-2].volume)
    rest = list(solve(problem, s, checkpoint=path))
    assert np.array_equal(rest[-1].volume, whole[-1].volume)


def test_a_way_back_in_mid_step_is_taken_at_once(prior, problem):
    s = settings(prior, "newton")
    control, counts = Asked(), []
    whole = [f for f in solve(problem, s, control) if not counts.append(control.count)]
    back = Asked(lambda c: c.back(1), (counts[-2] + counts[-1]) // 2)
    seen = list(solve(problem, s, back))
    assert [f.step for f in seen if f.step] == [1, 2, 3, 1, 2, 3, 4]
    assert [(c.step, c.back) for c in back.changes] == [(3, 1)]
    assert np.array_equal(seen[-1].volume, whole[-1].volume)


def test_single_steps_during_the_ordinary_solution_are_its_own(prior, problem):
    """*Step* did nothing there: the solution held until it was resumed."""
    s = settings(prior, "newton", evaluations=30)
    whole = [frame.info.stage for frame in solve(problem, s)]
    assert [stage[:8] for stage in whole[:4]] == ["ordinary"] * 3 + [""]
    control, frames, come = Control(), [], threading.Semaphore(0)

    def work():
        for frame in solve(problem, s, control):
            frames.append(frame)
            if len(frames) == 1:
                control.pause()
            come.release()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert come.acquire(timeout=60)
        for count in (2, 3, 4, 5):  # after the last of its frames comes step 1
            assert not come.acquire(timeout=0.3)  # it holds
            control.single()
            assert come.acquire(timeout=60)
            assert len(frames) == count
    finally:
        control.stop()
        worker.join(60)
    assert [frame.info.stage for frame in frames] == whole[:5]
    assert [frame.step for frame in frames] == [0, 0, 0, 1, 2]


def test_moving_atoms_says_what_it_does(prior, problem):
    said = []

    class Heard(Control):
        def say(self, doing):
            said.append(doing)
            super().say(doing)

    control = Heard()
    list(solve(problem, settings(prior, "atoms"), control))
    assert "counting the atoms of each column" in said
    assert any("moving atoms between slices: 3 of" in text for text in said)
    assert control.doing == ""


def test_every_block_of_positions_asks(problem):
    like = problem.likelihood("poisson")
    assert isinstance(like, Likelihood)
    asked = []
    like.poll = lambda: asked.append(1)
    x = torch.zeros(problem.shape)
    plain = like(x)
    like.poll = None
    assert like(x)[0] == plain[0]
    assert asked

    def leave():
        raise Interrupted

    like.poll = leave
    with pytest.raises(Interrupted):
        like(x)
    like.poll = None
    assert torch.equal(like(x)[1], plain[1])  # nothing of the half sweep is left


def test_a_paused_step_holds_and_a_single_one_is_finished():
    control, passed = Control(), []

    def work():
        for n in range(3):
            control.breathe()
            passed.append(n)

    control.pause()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.3)
    assert not passed
    control.single()
    thread.join(30)
    assert passed == [0, 1, 2]
    assert control.paused
    control.stop()
    with pytest.raises(Interrupted):
        control.breathe()
