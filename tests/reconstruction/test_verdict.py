"""A run that cannot be right must not simply be done."""

from __future__ import annotations

import math

import pytest

from napari_mepdiff.reconstruction.verdict import verdict


@pytest.mark.parametrize("loss", [0.87, 1.0, 1.3, 1.79, 2.11])
def test_runs_that_explain_their_data_are_not_doubted(loss):
    assert verdict(loss) is None
    assert verdict(loss, finished=False) is None


@pytest.mark.parametrize("loss", [4.3, 5.94, 8.2, 9.06, 10.2, 56.0, 72.5, 21883.0])
def test_a_misfit_far_above_shot_noise_is_a_warning_with_causes(loss):
    """These ended as *done*: wrong rotation, step, pixel size, defocus, gain; saturated pixels."""
    said = verdict(loss)
    assert said is not None
    assert said.loss == loss
    text = str(said)
    assert "shot noise" in text
    first = said.causes[0]
    assert ("saturated" in first) == (loss > 30)
    assert any("gain" in c for c in said.causes)
    assert any("defocus" in c for c in said.causes)
    assert any("rotation" in c for c in said.causes)


def test_a_misfit_below_shot_noise_is_doubted_too():
    """Patterns normalised to a sum of 1 ended at a misfit of 0.0000."""
    for loss in (0.0, 0.0131, 0.3):
        assert "no counts" in str(verdict(loss))


def test_what_is_not_finished_may_need_more_steps():
    assert "too few steps" in verdict(5.0, finished=False).causes[0]
    assert "too few steps" not in str(verdict(5.0))
    assert "diverged" in str(verdict(math.nan))
    assert "diverged" in str(verdict(math.inf))
