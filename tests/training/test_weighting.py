"""The weighting of noise levels and the schedule that learns where the loss is large."""

from __future__ import annotations

import math

import pytest
import torch

from napari_mepdiff.training.weighting import HIGH, LOW, AdaptiveSchedule, band_of, weighting


def test_weighting_is_a_density():
    grid = torch.linspace(LOW, HIGH, 20001)
    w = weighting(grid)
    assert float(torch.trapezoid(w, grid)) == pytest.approx(1, abs=1e-4)
    assert float(grid[w.argmax()]) == pytest.approx(-7, abs=0.01)
    assert float(weighting(torch.tensor(-4.0)) / weighting(torch.tensor(-7.0))) == pytest.approx(
        math.exp(-0.5), rel=1e-5
    )


def _learnt(loss):
    schedule = AdaptiveSchedule(decay=0.9)
    rng = torch.Generator().manual_seed(0)
    for _ in range(400):
        level, _ = schedule.draw(16, rng)
        schedule.update(level, loss(level))
    return schedule, rng


def test_the_adaptive_schedule_keeps_the_objective_and_lowers_its_variance():
    def loss(level):
        return torch.exp(-0.5 * ((level + 3) / 1.0) ** 2) + 0.01

    grid = torch.linspace(LOW, HIGH, 40001)
    truth = float(torch.trapezoid(weighting(grid) * loss(grid), grid))
    schedule, rng = _learnt(loss)
    fixed = AdaptiveSchedule()
    means, spreads = [], []
    for one in (schedule, fixed):
        level, factor = (
            torch.cat(t) for t in zip(*(one.draw(64, rng) for _ in range(300)), strict=True)
        )
        value = loss(level) * factor
        means.append(float(value.mean()))
        spreads.append(float(value.std()))
    assert means == pytest.approx([truth, truth], rel=0.03)
    assert spreads[0] < 0.7 * spreads[1]


def test_the_adaptive_schedule_survives_nan_and_a_round_trip():
    schedule, _rng = _learnt(lambda level: level.abs())
    before = schedule.average.clone()
    schedule.update(torch.tensor([-5.0]), torch.tensor([float("nan")]))
    assert torch.equal(before, schedule.average)
    other = AdaptiveSchedule()
    other.load_state_dict(schedule.state_dict())
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    assert all(
        torch.equal(x, y) for x, y in zip(schedule.draw(9, a), other.draw(9, b), strict=True)
    )
    assert float(schedule.density().sum()) == pytest.approx(1, abs=1e-5)


def test_bands_cover_all_levels():
    assert band_of(-25) == "-20..-13"
    assert band_of(-8) == "-10..-7"
    assert band_of(99) == "3..20"
