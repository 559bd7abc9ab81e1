"""The held-out measurements that solvers are compared on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.evaluation.benchmark import held_out
from napari_mepdiff.evaluation.judge import data_deviance


def test_held_out_measurements_are_always_the_same_and_at_shot_noise():
    (name, data), (again, same) = next(held_out(1, first=2)), next(held_out(1, first=2))
    assert name == again
    assert np.array_equal(data.patterns(), same.patterns())
    assert data.shape == (26, 26, 128, 128)
    assert data.truth.shape == (8, 64, 64)
    assert data_deviance(data.truth, data) == pytest.approx(1, abs=0.03)
    positions = data.truth_atoms["positions"]
    assert ((positions >= 0) & (positions < 12.8)).all()
    low = next(held_out(1, first=2, dose=1e3))[1]
    assert low.patterns().sum() == pytest.approx(data.patterns().sum() / 1000, rel=0.05)


def test_more_crystals_than_there_are_is_said():
    with pytest.raises(ValueError, match="crystals; asked for"):
        next(held_out(5000, "validation"))
