"""Whole atoms in slices: volumes and their amplitudes, the fitted rest, the sampling, its state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction.atoms import occupancy
from napari_mepdiff.reconstruction.atoms.occupancy import Occupancy, TooManyAtoms, temperatures
from napari_mepdiff.reconstruction.control import Interrupted

from .small import ELEMENTS, crystal_problem


@pytest.fixture(scope="module")
def case():
    problem, truth = crystal_problem(electrons=1e6)
    return problem.likelihood("poisson"), truth


def make(case, **options):
    like, truth = case
    return Occupancy.from_sum(
        like, truth.sum(0), ELEMENTS, (0.2, 0.2), 300.0, band_limit=None, **options
    )


def test_columns_and_their_atoms_are_those_of_the_crystal(case):
    found = make(case)
    assert len(found.count) == 9
    assert sorted(found.count.tolist()) == [1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert np.allclose(found.mean.sum(axis=0), found.count)


def test_amplitudes_are_the_inverse_of_atoms(case):
    found = make(case, chains=3)
    again = found.amplitudes(found.atoms(found.states))
    assert again.shape == found.states.shape
    assert np.abs(again - found.states).max() < 0.05
    found.believe(found.atoms(found.states[:2]), 2.0)
    assert found.odds.shape == (3, 4, 9)
    assert np.abs(found.odds[0] - 2 * (2 * found.states[0] - 1)).max() < 0.2
    assert np.array_equal(found.odds[0], found.odds[2])  # two samples, three chains


def test_the_rest_takes_up_what_the_columns_do_not_explain(case):
    like, _ = case
    found = make(case)
    before = like.loss(found.volume(found.mean))
    found.fit_rest(12)
    assert like.loss(found.volume(found.mean)) < before
    assert float(found.rest.image.min()) == 0
    # two of the columns are left out: the sources put something there
    part = make(case)
    left_out = part.images[:2].clone()
    part.images[:2] = 0
    part.fit_rest(25)
    inside = left_out.sum(0) > 0.3 * left_out.sum(0).max()
    assert float(part.rest.image[inside].mean()) > 5 * float(part.rest.image[~inside].mean())


def test_data_alone_put_the_atoms_into_their_slices(case):
    like, truth = case
    found = make(case, chains=16)
    even = like.loss(found.volume(found.mean))
    for part in (0.0, 0.5, 1.0):
        found.settle(part)
    assert like.loss(found.volume(found.mean)) < like.loss(torch.from_numpy(truth)) + 0.05 * even
    wanted = found.amplitudes(torch.from_numpy(truth))
    assert (np.round(found.mean) == np.round(wanted)).mean() > 0.9
    assert np.allclose(found.means.sum(axis=1), found.count)  # no atom is lost or made


def test_the_better_half_of_the_chains_goes_on(case):
    _, truth = case
    found = make(case, chains=6)
    right = np.round(found.amplitudes(torch.from_numpy(truth)))
    found.states[4], found.means[4] = right, right
    found.select()
    assert (found.states == right).all(axis=(1, 2)).sum() == 2  # the best of them, twice
    assert len(found.states) == 6


def test_a_state_goes_on_as_the_run_itself(case):
    like, _ = case
    found = make(case, chains=4, seed=3)
    found.settle(0.0)
    found.believe(found.atoms(found.means), 1.0)
    copy = Occupancy.from_state(like, found.state(), (0.2, 0.2), 300.0)
    for one in (found, copy):
        one.settle(0.5)
    assert np.array_equal(found.mean, copy.mean)
    assert torch.equal(found.rest.sources, copy.rest.sources)


def test_it_can_be_ended_early_and_knows_its_limits(case, monkeypatch):
    found = make(case)
    before = found.mean.copy()
    with pytest.raises(Interrupted):
        found.settle(0.0, poll=_leave)
    assert np.array_equal(found.mean, before)
    monkeypatch.setattr(
        occupancy, "LARGEST", 36
    )  # nine columns in four slices can be seen, and so can be sampled
    assert len(make(case).count) == 9
    monkeypatch.setattr(occupancy, "LARGEST", 35)
    with pytest.raises(TooManyAtoms, match="about 9 columns × 4 slices are more than the 35"):
        make(case)


def test_temperatures_fall_within_a_sampling_and_from_one_to_the_next():
    first, last = temperatures(0.0), temperatures(1.0)
    assert (first[0], first[-1], last[0], last[-1]) == pytest.approx((1000, 90, 60, 10))
    assert (np.diff(first) < 0).all()
    assert (temperatures(0.5) < first).all()


def _leave():
    raise Interrupted
