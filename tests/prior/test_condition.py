"""Conditions as the network takes them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.prior.condition import Condition


def test_a_sum_and_a_volume_become_channels():
    volume = np.random.default_rng(0).random((8, 16, 16)).astype(np.float32)
    channels, flags = Condition.from_sum(volume.sum(axis=0), 8).channels(25)
    assert np.allclose(channels[0, 3], 25 * volume.mean(axis=0), atol=1e-4)
    assert channels[1].abs().max() == 0
    assert flags.tolist() == [1, 0, 0]
    channels, flags = Condition.from_volume(volume, 0.4).channels(25)
    assert np.allclose(channels.sum(dim=0), 25 * volume, atol=1e-4)
    assert channels[1].mean(dim=0).abs().max() < 1e-4
    assert flags.tolist() == pytest.approx([1, 1, 0.4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Condition.from_sum(np.zeros((2, 3, 3)), 8), "depth sum is a finite image"),
        (lambda: Condition.from_sum(np.full((3, 3), np.nan), 8), "finite"),
        (lambda: Condition.from_volume(np.zeros((3, 3))), "finite volume"),
        (lambda: Condition.from_volume(np.full((2, 3, 3), np.inf)), "finite"),
        (lambda: Condition.from_volume(np.zeros((2, 3, 3)), 1.2), "between 0 and 1"),
    ],
)
def test_impossible_conditions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
