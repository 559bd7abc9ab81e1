"""What a network is told beside the volume: elements, and what data say of its guess."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.prior.model import Prior
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.microscopes import WRONG, draw_microscope
from napari_mepdiff.training.run import train
from napari_mepdiff.training.step import Trainer
from napari_mepdiff.training.stream import CrystalStream
from napari_mepdiff.training.validation import elements_of, losses, volumes_of

from ..prior.nets import tiny
from .small import SETTINGS

KNOWING = SETTINGS.model_copy(
    update={"network": SETTINGS.network.model_copy(update={"elements": True})}
)


@pytest.fixture(scope="module")
def structures():
    return load_structures().part("validation")


def test_the_elements_of_a_box_are_those_of_its_atoms(structures):
    stream = CrystalStream(structures, seed=1)
    boxes = stream.boxes(0, 6)
    found = boxes.elements(98)
    rng = np.random.default_rng([1, 0])
    size = (12.8, 12.8, 12.8)
    for row in found:
        numbers, places = stream.atoms(rng, size, 4.0)
        inside = ((places >= 0) & (places < np.array(size)))[:, 1:].all(axis=1)
        assert np.flatnonzero(row).tolist() == sorted(set((numbers[inside] - 1).tolist()))


def test_elements_are_told_to_some_and_sometimes_too_many(structures):
    settings = KNOWING.model_copy(update={"batch": 400, "lateral": 16, "false_elements": 0.3})
    trainer = Trainer(settings, structures)
    told = trainer.draw().elements
    truth = torch.from_numpy(trainer.ahead.take(0).elements(98))
    asked = told[:, -1] == 1
    assert float(asked.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert not told[~asked].any()
    given, true = told[asked, :-1], truth[asked]
    assert bool((given >= true).all())  # none is left out
    more = (given - true).sum(dim=1)
    assert float((more > 0).float().mean()) == pytest.approx(0.3, abs=0.12)
    assert more.max() <= 2


def test_a_run_with_elements_may_begin_with_a_prior_without(structures, tmp_path):
    list(train(SETTINGS, structures, tmp_path / "a", steps=3))
    list(train(KNOWING, structures, tmp_path / "b", steps=2, start=tmp_path / "a"))
    prior = Prior.load(tmp_path / "b")
    assert prior.network.config.elements
    assert prior.network.told.weight.abs().max() > 0


ASKING = SETTINGS.model_copy(
    update={
        "network": SETTINGS.network.model_copy(update={"elements": True, "answer": True}),
        "no_answer": 0.25,
    }
)


def test_data_are_asked_for_a_share_and_always_the_same_ones(structures):
    one, two = Trainer(ASKING, structures), Trainer(ASKING, structures)
    batch = one.draw()
    shown = one.asked(batch, 4).answer
    assert shown.shape == (4, 4, 4, 32, 32)
    assert [bool(a.any()) for a in shown] == [True, True, True, False]
    assert torch.isfinite(shown).all()
    assert torch.equal(shown, two.asked(two.draw(), 4).answer)
    pieces = one.asked(batch, 2).answer
    assert torch.allclose(pieces, shown, atol=1e-3)
    assert Trainer(SETTINGS, structures).asked(batch, 4).answer is None


def test_a_run_that_asks_data_may_begin_with_a_prior_that_does_not(structures, tmp_path):
    list(train(SETTINGS, structures, tmp_path / "a", steps=3))
    list(train(ASKING, structures, tmp_path / "b", steps=2, start=tmp_path / "a"))
    prior = Prior.load(tmp_path / "b")
    assert prior.network.config.answer
    assert prior.network.answered.weight.abs().max() > 0


def test_microscopes_vary_and_fit_their_field():
    rng = np.random.default_rng(0)
    drawn = [draw_microscope(rng, (64, 64)) for _ in range(60)]
    assert {len(m.places) for m in drawn} >= {12, 20, 30}
    assert 64 <= len(draw_microscope(rng, (64, 64), dense=True).places) <= 196
    assert min(m.optics.semi_angle for m in drawn) >= 15
    assert max(m.optics.overfocus for m in drawn) > 150
    assert min(m.optics.overfocus for m in drawn) < -30
    for m in drawn:
        assert abs(m.optics.overfocus) * m.optics.semi_angle * 1e-3 <= 6.4  # Å, half the field
        assert 0.1 < m.area < 14
        assert abs(m.believed.overfocus - m.optics.overfocus) <= WRONG + 1e-9
    probe = drawn[0].scan((64, 64), True, "cpu").waves
    assert torch.allclose(probe.abs().square().sum(dim=(1, 2)), torch.ones(len(probe)), atol=1e-4)


def test_validation_also_tells_elements_and_asks_data(structures):
    prior = tiny(config=ASKING.network)
    volumes, elements = (
        f(load_structures(), "validation", 2, (4, 32, 32)) for f in (volumes_of, elements_of)
    )
    found = losses(
        prior.network, volumes, grid=(-3.0,), precision="float32", elements=elements, answer=True
    )
    assert set(found) >= {"none", "sum", "trend", "elements", "answer", "weighted answer"}
    assert len({round(found[m][0], 6) for m in ("none", "elements", "answer")}) == 3
    assert elements.shape == (2, 99)
    assert elements[0, :-1].sum() >= 1
