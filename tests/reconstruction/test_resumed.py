"""A run that was interrupted and gone on with is the run that was not, also when it diverges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction.change import Change
from napari_mepdiff.reconstruction.checkpoint import load_checkpoint, save_checkpoint
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.diffusion import sampling
from napari_mepdiff.reconstruction.diffusion.sampling import Diverged, Sampling
from napari_mepdiff.reconstruction.diffusion.settings import DPSSettings
from napari_mepdiff.reconstruction.registry import SolverError, solve
from napari_mepdiff.reconstruction.script import Script

from ..prior.nets import tiny
from .small import crystal_problem


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    tiny().save(path, torch.float32)
    return str(path)


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=5)[0]


@pytest.fixture
def diverging(monkeypatch):
    """Step 8 diverges until the weight was halved twice: back to step 5, then to step 3."""
    admissible = Sampling.admissible

    def checked(self, guided):
        if self.step + 1 == 8 and self.run.settings.weight > 0.3:
            raise Diverged("guidance is too strong")
        return admissible(self, guided)

    monkeypatch.setattr(Sampling, "admissible", checked)


def settings(prior):
    return DPSSettings(
        prior=prior, guidance="newton", steps=12, passes=1, evaluations=5, precision="float32"
    )


def whole(problem, s, control):
    return list(solve(problem, s, control))[-1]


def interrupted(problem, s, path, frames):
    """The state after so many frames of steps."""
    control = Control()
    for frame in solve(problem, s, control, checkpoint=path, every=0):
        frames -= frame.step > 0
        if not frames:
            control.stop()


def in_two_parts(problem, s, path, frames, control):
    interrupted(problem, s, path, frames)
    return list(solve(problem, s, control, checkpoint=path, every=0))[-1]


@pytest.mark.parametrize("frames", [3, 6, 7, 8, 9, 12])
def test_a_resumed_run_that_diverges_goes_back_as_far_as_the_uninterrupted_one(
    problem, prior, diverging, tmp_path, frames
):
    """It went on from where it was resumed, and its record, played again, gave another volume."""
    s, one, two = settings(prior), Control(), Control()
    expected = whole(problem, s, one)
    found = in_two_parts(problem, s, tmp_path / "c", frames, two)
    assert [c.reason for c in one.changes] == [
        "guidance is too strong; back to step 5 with weight 0.5",
        "guidance is too strong; back to step 3 with weight 0.25",
    ]
    assert two.changes == one.changes
    assert np.array_equal(found.volume, expected.volume)


def test_a_user_goes_back_behind_the_interruption(problem, prior, tmp_path):
    s, back = settings(prior), Change(7, back=4)
    expected = whole(problem, s, Script([back]))
    control = Script([back])
    found = in_two_parts(problem, s, tmp_path / "c", 6, control)
    assert control.changes == [back]
    assert np.array_equal(found.volume, expected.volume)


@pytest.mark.parametrize("version", ["this", "an earlier one"])
def test_a_state_that_was_not_kept_is_not_replaced_by_another(
    problem, prior, diverging, tmp_path, monkeypatch, version
):
    """Going on from some other state would be a run that nobody can make again."""
    monkeypatch.setattr(sampling, "REACH", 1)
    s, path, control = settings(prior), tmp_path / "c", Control()
    interrupted(problem, s, path, 7)
    if version != "this":
        state = load_checkpoint(path)
        state["changes"] = "[]"
        del state["kept"], state["left_out"]
        save_checkpoint(path, state)
    with pytest.raises(SolverError, match=r"state of step 5.* was not kept.*begin it anew"):
        list(solve(problem, s, control, checkpoint=path))
    assert control.changes == []
