"""The held-out measurements that solvers are compared on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.evaluation.benchmark import held_out
from napari_mepdiff.evaluation.judge import data_deviance
from napari_mepdiff.measurement import simulate

from ..needs import needs


@needs("abtem")
def test_held_out_measurements_are_always_the_same_and_at_shot_noise(monkeypatch):
    made, original = [], simulate.diffraction

    def diffraction(*given, **named):
        made.append(original(*given, **named))
        return made[-1]

    def elsewhere(*_, **__):  # the same on a processor with other last digits
        digits = np.random.default_rng(0).normal(size=made[0].shape)
        return made[0] * (1 + 1e-6 * digits)

    monkeypatch.setattr(simulate, "diffraction", diffraction)
    (name, data), (again, same) = next(held_out(1, first=2)), next(held_out(1, first=2))
    assert name == again
    assert len(made) == 2
    assert np.array_equal(data.patterns(), same.patterns())
    assert data.shape == (26, 26, 128, 128)
    assert data.truth.shape == (8, 64, 64)
    monkeypatch.setattr(simulate, "diffraction", elsewhere)
    other = next(held_out(1, first=2))[1]
    assert not np.array_equal(data.patterns(), other.patterns())
    here, there = (data_deviance(data.truth, d) for d in (data, other))
    assert here == pytest.approx(1, abs=0.03)
    assert there == pytest.approx(here, rel=1e-3)  # 1e-4 was seen
    positions = data.truth_atoms["positions"]
    assert ((positions >= 0) & (positions < 12.8)).all()
    monkeypatch.setattr(simulate, "diffraction", lambda *_, **__: made[-1])  # the same at any dose
    low = next(held_out(1, first=2, dose=1e3))[1]
    assert low.patterns().sum() == pytest.approx(data.patterns().sum() / 1000, rel=0.05)


def test_more_crystals_than_there_are_is_said():
    with pytest.raises(ValueError, match="crystals; asked for"):
        next(held_out(5000, "validation"))
