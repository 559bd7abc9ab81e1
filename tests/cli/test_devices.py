"""Commands that sample or train prove their device first, as a reconstruction does."""

from __future__ import annotations

import pytest
import torch

from napari_mepdiff.base import devices
from napari_mepdiff.prior import self_test
from napari_mepdiff.prior.model import Prior
from napari_mepdiff.training import run as training

from .terminal import mepdiff


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that computes on the CPU, by a factor too much that the test sets."""
    factor = {"there": 1.1}
    original = self_test._results

    def results(device):
        by = 1 if device == "cpu" else factor["there"]
        return {name: value * by for name, value in original("cpu").items()}

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, device=None, **k: empty(*a, **k))
    monkeypatch.setattr(self_test, "_results", results)
    monkeypatch.setattr(self_test, "_passed", set())
    monkeypatch.setattr(devices, "_trusted", set())
    return factor


COMMANDS = [
    ("prior", "sample", "-o", "v.h5"),
    ("prior", "evaluate", "-o", "report"),
    ("train", "--steps", "1", "-o", "run"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_gpu_that_computes_wrongly_samples_and_trains_nothing(gpu, tmp_path, words):
    """Crystals, a report or weights would come out that are wrong, without a word."""
    code, said = mepdiff(*words, "--device", "cuda:0", cwd=tmp_path)
    assert code == 1
    assert "does not compute what the CPU computes" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_gpu_that_computes_rightly_goes_on_and_the_log_says_so(
    gpu, tmp_path, monkeypatch, caplog, words
):
    """The work begins on the device that was asked for, after the test."""
    gpu["there"] = 1.0
    begun = []

    def begin(*_words, device, **_more):
        begun.append(device)
        raise ValueError("far enough")

    monkeypatch.setattr(Prior, "load", _loading(Prior.load, begin))
    monkeypatch.setattr(training, "_trainer", lambda *given: begin(device=given[5]))
    code, said = mepdiff("--verbose", *words, "--device", "cuda:0", cwd=tmp_path)
    assert code == 1
    assert "far enough" in said
    assert begun == ["cuda:0"]
    assert "self-test on cuda:0 passed" in caplog.text + said


def _loading(original, begin):
    def load(*words, device="cpu", **more):
        return original(*words, **more) if device == "cpu" else begin(device=device)

    return load


def test_apples_gpu_trains_nothing_even_if_it_predicts_rightly(gpu, tmp_path):
    """The self-test sees a network's predictions, not the gradients of its weights."""
    gpu["there"] = 1.0
    code, said = mepdiff("train", "--steps", "1", "--device", "mps", cwd=tmp_path)
    assert code == 1
    assert "'mps' is refused" in said
