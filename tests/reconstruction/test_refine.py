"""Refinement of probe and positions.

It stays on the canvas, and what it finds serves the next run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mepdiff.microscope.state import MicroscopeState
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.ordinary.refine import RefineSettings, refined
from napari_mepdiff.reconstruction.preview import preview
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.reconstruction.registry import SOLVERS, solve

from ..gui.conftest import small_data
from .small import crystal_problem


def at_the_rim(seed=1):
    """A canvas that ends a pixel beyond the outermost windows; positions that are wrong."""
    problem, _ = crystal_problem(boundary="extended", scan=6)
    low = np.floor(problem.positions / 0.2 + 0.5).min(axis=0).astype(int) - 16 - 1
    high = np.floor(problem.positions / 0.2 + 0.5).max(axis=0).astype(int) + 16 + 1
    shift = np.random.default_rng(seed).normal(0, 0.1, problem.positions.shape)
    positions = problem.positions - low * 0.2 + shift.clip(-0.09, 0.09)
    return replace(problem, positions=positions, shape=(4, *(high - low)))


def test_positions_are_held_on_the_canvas():
    """Positions wandered off a canvas with a rim of one pixel, and the run died in the middle."""
    problem, control = at_the_rim(), Control()
    settings = RefineSettings(iterations=12, probe_start=1, position_rate=0.1, batch=12)
    frames = list(solve(problem, settings, control))
    assert frames[-1].step == 12
    low, high = problem.position_bounds()
    places = frames[-1].info.positions
    assert (places >= low).all()
    assert (places <= high).all()
    assert (np.abs(places - problem.positions).max(axis=0) > 0.2).any()  # they did want to go
    told = [note for note in control.notes if "held at its rim" in note]
    assert len(told) == 1


def test_room_is_asked_for_where_positions_move():
    assert RefineSettings(position_rate=0.01, max_shift=0.7).position_room() == 0.7
    assert RefineSettings(position_rate=0.0, max_shift=0.7).position_room() == 0.0
    assert SOLVERS["adam"].default().position_room() == 0.0


def test_what_was_refined_is_kept_and_used_by_the_next_run(tmp_path):
    """Refined probe and positions were shown while the run lasted, and then lost."""
    data = small_data(truth=False)
    wrong = data.optics.model_copy(update={"overfocus": 80.0})
    first = Problem.from_data(data, slices=4, slice_thickness=1.6, optics=wrong)
    settings = RefineSettings(iterations=25, probe_start=2, probe_rate=2e-2, learning_rate=1e-2)
    frames = list(solve(first, settings))
    state = refined(frames[-1], first, run="a night's run")
    assert state is not None
    state.save(tmp_path / "microscope.h5")
    again = MicroscopeState.load(tmp_path / "microscope.h5")
    assert np.array_equal(again.probe, frames[-1].info.probe)
    np.testing.assert_allclose(again.positions, data.scan_positions(), atol=1e-6)
    assert again.provenance["run"] == "a night's run"
    second = Problem.from_data(data, slices=4, slice_thickness=1.6, microscope=again)
    torch.testing.assert_close(second.probe, torch.from_numpy(again.probe), rtol=1e-3, atol=1e-3)
    quick = SOLVERS["adam"].default(iterations=4, learning_rate=1e-2, misfit="amplitude")
    with_it, without = (list(solve(p, quick))[-1].loss for p in (second, first))
    assert with_it < 0.8 * without
    assert refined(list(solve(second, quick))[-1], second) is None


def test_a_preview_of_a_refinement_is_less_work():
    """It used to set a detector stride that the solver did not look at."""
    settings = RefineSettings(iterations=50)
    less = preview(settings)
    problem = crystal_problem(scan=5)[0]
    assert list(solve(problem, less))[-1].step == less.iterations < settings.iterations / 3


def test_what_is_fixed_has_no_effect_and_says_so():
    still = RefineSettings(probe_rate=0.0, position_rate=0.0)
    assert {"max_shift", "probe_start"} <= still.idle().keys()
    assert "max_shift" in RefineSettings().idle()
    with pytest.raises(ValueError, match="max_shift cannot change now: the positions are fixed"):
        next_step_changes(max_shift=0.2)


def next_step_changes(**fields):
    control = Control()
    for frame in solve(crystal_problem(scan=5)[0], RefineSettings(iterations=2), control):
        if frame.step == 1:
            control.change(**fields)
