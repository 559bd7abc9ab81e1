"""Crystals drawn ahead in other processes, and what else a GPU asks of training."""

from __future__ import annotations

import itertools
import os
import signal

import pytest
import torch

from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.ahead import Ahead
from napari_mepdiff.training.run import train
from napari_mepdiff.training.step import BAD, Trainer, TrainingError
from napari_mepdiff.training.stream import Augmentation, CrystalStream

from .small import SETTINGS


@pytest.fixture(scope="module")
def structures():
    return load_structures().part("validation")


def _order(step):
    return step, 3, (4, 32, 32) if step % 3 else (4, 48, 48)


def test_other_processes_draw_the_same_crystals(structures):
    stream = CrystalStream(structures, Augmentation(any_direction=0.3), seed=3)
    here, there = Ahead(stream, _order), Ahead(stream, _order, workers=2)
    try:
        for step in (0, 1, 2, 3, 9, 10):  # a gap as after a resume
            a, b = (CrystalStream.volumes(one.take(step)) for one in (here, there))
            assert torch.equal(a, b)
        for process in there._pool._processes.values():
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="have died"):
            [there.take(step) for step in range(11, 99)]
    finally:
        there.close()


def test_a_run_with_workers_is_the_run_without(structures, tmp_path):
    weights = []
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        list(train(SETTINGS, structures, folder, steps=3, workers=workers))
        weights.append(torch.load(folder / "checkpoint.pt", weights_only=True)["network"])
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_losses_may_be_looked_at_every_few_steps(structures):
    """As on a GPU, which would have to wait for every look."""
    one, two = Trainer(SETTINGS, structures), Trainer(SETTINGS, structures, reads=3)
    for _ in range(3):
        one.advance()
        two.advance()
    assert two.loss == pytest.approx(one.loss, rel=0.2)  # λ is drawn by what was known then
    before = [p.clone() for p in two.network.parameters()]
    original = two.draw
    two.draw = lambda: (lambda b: b._replace(x=b.x * float("nan")))(original())
    for _ in range(3):
        two.advance()
    assert all(torch.equal(a, b) for a, b in zip(before, two.network.parameters(), strict=True))
    assert len(two.notes) == 3
    with pytest.raises(TrainingError, match="diverged"):
        [two.advance() for _ in range(BAD)]


def test_the_rate_rises_stays_and_falls_to_nothing(structures, tmp_path):
    settings = SETTINGS.model_copy(update={"fall": 0.4, "warm_up": 3, "average_over": 20})
    rates = [r.learning_rate for r in train(settings, structures, tmp_path / "a", steps=10)]
    # a report comes after its step and states the rate of the next one
    full = settings.learning_rate
    assert rates[0] == pytest.approx(full * 2 / 3)
    assert rates[2:6] == pytest.approx([full] * 4)
    assert rates[8] < 0.6 * full
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))
    with pytest.raises(ValueError, match="give minutes or steps"):
        next(train(settings, structures, tmp_path / "b"))
    trainer = Trainer(settings, structures)
    trainer.progress = 1.0
    trainer.step = 50
    assert trainer.learning_rate() < 2e-3 * full


def test_the_average_forgets_after_so_many_volumes(structures):
    trainer = Trainer(SETTINGS.model_copy(update={"average_over": 40}), structures)
    trainer.step = 10_000
    with torch.no_grad():
        for p in trainer.network.parameters():
            p.add_(1.0)
    name, value = next(iter(trainer.network.named_parameters()))
    old = trainer.average[name].clone()
    for _ in range(10):  # 40 volumes
        trainer.follow()
    share = float(((trainer.average[name] - old) / (value - old)).detach().mean())
    assert share == pytest.approx(0.632, abs=0.01)


def test_a_compiler_that_fails_is_done_without(structures, monkeypatch):
    def broken(*_, **__):
        def call(*_):
            raise RuntimeError("no C compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    trainer = Trainer(SETTINGS.model_copy(update={"compile": True}), structures)
    plain = Trainer(SETTINGS, structures)
    trainer.advance(), plain.advance()
    assert "no C compiler" in trainer.notes[0]
    assert all(
        torch.equal(a, b)
        for a, b in zip(trainer.network.parameters(), plain.network.parameters(), strict=True)
    )
