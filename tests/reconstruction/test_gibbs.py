"""Gibbs sampling of atoms in slices against exact enumeration."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from napari_mepdiff.reconstruction.atoms.gibbs import random_states, sample_slices


def everything(depth, counts, column):
    """All allowed occupancies (n, D, C)."""
    choices = [list(combinations(range(depth), n)) for n in counts]
    out = []
    for pick in product(*choices):
        o = np.zeros((depth, len(counts)))
        for c, slices in enumerate(pick):
            o[list(slices), c] = 1
        full = np.zeros((depth, column.max() + 1))
        for c in range(len(counts)):
            full[:, column[c]] += o[:, c]
        if full.max() <= 1:
            out.append(o)
    return np.array(out)


@pytest.mark.parametrize("odds", [None, 0.7])
def test_averages_are_those_of_the_distribution(odds):
    depth, counts, column = 4, np.array([2, 1, 1]), np.array([0, 1, 1])
    rng = np.random.default_rng(1)
    root = rng.normal(size=(depth * 3, depth * 3))
    fisher, gradient = root @ root.T * 0.15, rng.normal(size=(depth, 3))
    expanded = np.repeat(counts[None] / depth, depth, axis=0)
    bias = None if odds is None else odds * rng.normal(size=(depth, 3))
    temperature = 1.5
    states = everything(depth, counts, column)
    away = states.reshape(len(states), -1) - expanded.reshape(1, -1)
    energy = away @ gradient.ravel() + 0.5 * np.einsum("ni,ij,nj->n", away, fisher, away)
    logit = -energy / temperature + (
        0 if bias is None else states.reshape(len(states), -1) @ bias.ravel()
    )
    weight = np.exp(logit - logit.max())
    exact = np.einsum("n,ndc->dc", weight / weight.sum(), states)
    start = random_states(counts, column, depth, 8, seed=3)
    means, ended = sample_slices(
        fisher,
        gradient,
        expanded,
        start,
        column,
        temperature,
        odds=bias,
        burn=200,
        sweeps=6000,
        seed=5,
    )
    assert np.abs(means.mean(axis=0) - exact).max() < 0.02
    assert np.array_equal(ended.sum(axis=1), np.repeat(counts[None], 8, axis=0))
    assert set(np.unique(ended)) == {0.0, 1.0}
    pair = ended[:, :, 1] + ended[:, :, 2]
    assert pair.max() <= 1  # two species of one column never share a place


def test_same_seed_same_chains():
    counts, column = np.array([3, 2]), np.array([0, 1])
    root = np.random.default_rng(0).normal(size=(12, 12))
    args = (
        root @ root.T,
        np.zeros((6, 2)),
        np.repeat(counts[None] / 6, 6, axis=0),
        random_states(counts, column, 6, 4, 0),
        column,
        1.0,
    )
    a, b = (sample_slices(*args, burn=10, sweeps=20, seed=9)[0] for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, sample_slices(*args, burn=10, sweeps=20, seed=10)[0])


def test_a_cold_chain_finds_the_best_arrangement():
    depth, counts, column = 5, np.array([2, 2]), np.array([0, 1])
    best = np.zeros((depth, 2))
    best[[1, 4], 0] = best[[0, 2], 1] = 1
    fisher = np.eye(10) * 4
    means, ended = sample_slices(
        fisher,
        np.zeros((5, 2)),
        best,
        random_states(counts, column, depth, 6, 2),
        column,
        0.05,
        burn=100,
        sweeps=20,
        seed=1,
    )
    assert (ended == best).all()
    assert np.allclose(means, best)


def test_random_states_fill_a_full_column():
    states = random_states(np.array([2, 2]), np.array([0, 0]), 4, 3, 0)
    assert (states.sum(axis=2) == 1).all()
