"""Elements as something that a prior can be told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.prior.condition import Condition, elements_vector
from napari_mepdiff.prior.model import Prior
from napari_mepdiff.prior.network import UNet, on_device
from napari_mepdiff.prior.process import SCALE, diffuse
from napari_mepdiff.prior.sampler import sample
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.stream import Augmentation, CrystalStream

from .nets import TINY, noise, tiny

KNOWING = TINY.model_copy(update={"elements": True})


def test_elements_are_told_as_their_atomic_numbers():
    vector = elements_vector([38, 22, 8, 8])
    assert vector.nonzero()[:, 0].tolist() == [7, 21, 37, 98]
    for wrong in ([], [0], [99]):
        with pytest.raises(ValueError, match="atomic numbers from 1"):
            elements_vector(wrong)
    with pytest.raises(ValueError, match="trusted"):
        Condition(depth_correlation=0.3)


def test_elements_matter_beside_any_condition_and_in_windows():
    prior, other = tiny(config=KNOWING), tiny(config=KNOWING, tiling="windows")
    z = noise(8, 32, 32)
    image = np.ones((32, 32), np.float32)
    for known in (None, Condition.from_sum(image, 8)):
        volume = None if known is None else known.volume
        plain = prior(z, -3.0, known)
        told = prior(z, -3.0, Condition(volume, elements=(8, 38)))
        assert (told - plain).abs().max() > 1e-3
        assert torch.allclose(other(z, -3.0, Condition(volume, elements=(8, 38))), told, atol=1e-5)
    x, pull = prior.vjp(z, -3.0, Condition.from_elements([38, 8]))
    assert torch.allclose(x, prior(z, -3.0, Condition(elements=(8, 38))), atol=1e-6)
    assert pull(torch.ones_like(z)).abs().max() > 0
    drawn = sample(prior, (4, 16, 16), steps=2, condition=Condition.from_elements([6]))
    assert not torch.equal(drawn, sample(prior, (4, 16, 16), steps=2))


def test_a_prior_that_was_trained_without_elements_refuses_them():
    with pytest.raises(ValueError, match="cannot be told the elements"):
        tiny()(noise(4, 16, 16), -3.0, Condition.from_elements([8]))


def test_the_shipped_prior_listens():
    """Held-out crystals are predicted better with their elements told, worse with others'."""
    prior = Prior.load("compact")
    stream = CrystalStream(load_structures().part("validation"), Augmentation())
    volumes, atoms, _ = stream.fixed(limit=24)
    errors = dict.fromkeys(("told", "nothing", "misled"), 0.0)
    for i in range(0, 24, 3):
        x = SCALE * volumes[i : i + 1]
        z = diffuse(x, noise(*x.shape), torch.tensor([-7.0]))
        own, other = ({int(n) for n in atoms[k][0]} for k in (i, (i + 12) % 24))
        conditions = (Condition.from_elements(own), None, Condition.from_elements(other))
        for name, condition in zip(errors, conditions, strict=True):
            found = prior(z, -7.0, condition)
            errors[name] += float((found - x).square().mean() / x.square().mean())
    assert errors["told"] < 0.98 * errors["nothing"] < 0.98 * errors["misled"]


def test_a_network_that_learns_elements_begins_as_the_one_before():
    old, new = tiny().network, on_device(UNet(KNOWING), "cpu")
    new.load_state_dict({**new.state_dict(), **old.state_dict()})
    z = noise(2, 4, 16, 16)
    given = (torch.tensor([-3.0, 1.0]), torch.zeros(2, 2, 4, 16, 16), torch.zeros(2, 3))
    told = elements_vector([8, 38]).expand(2, 99)
    with torch.no_grad():
        assert torch.allclose(old(z, *given), new(z, *given, told), atol=1e-6)
