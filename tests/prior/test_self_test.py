"""A device is taken for a run only if it computes what the CPU computes."""

import logging

import numpy as np
import pytest
import torch

from napari_mepdiff.base import devices
from napari_mepdiff.prior import self_test as module
from napari_mepdiff.prior.self_test import prove, self_test
from napari_mepdiff.reconstruction.registry import SOLVERS, solve


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that computes on the CPU, and wrongly by a factor that the test sets for each
    result."""
    wrong: dict[str, float] = {}
    asked: list[str] = []
    original = module._results

    def results(device):
        asked.append(device)
        found = original("cpu")
        if device != "cpu":
            found = {name: value * wrong.get(name, 1 + 1e-5) for name, value in found.items()}
        return found

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, device=None, **k: empty(*a, **k))
    monkeypatch.setattr(module, "_results", results)
    monkeypatch.setattr(module, "_passed", set())
    monkeypatch.setattr(devices, "_trusted", set())
    return wrong, asked


def test_the_cpu_is_what_others_are_held_to():
    assert prove("cpu") is None
    found = self_test("cpu")
    assert set(found.errors) == {"the prior", "its derivative", "the misfit", "its gradient"}
    assert found.passed
    assert max(found.errors.values()) < 1e-5


def test_a_gpu_is_tested_once_and_the_log_says_so(gpu, caplog):
    with caplog.at_level(logging.INFO, logger="napari_mepdiff"):
        found = prove("cuda:0")
    assert found.errors["the prior"] == pytest.approx(1e-5, rel=0.1)
    assert "self-test on cuda:0 passed" in caplog.text
    assert "its gradient 1.0e-05" in caplog.text
    assert prove("cuda:0") is None
    assert gpu[1] == ["cuda:0", "cpu"]
    assert prove("cuda:1") is not None  # another card


@pytest.mark.parametrize("name", ["the prior", "its derivative", "the misfit", "its gradient"])
@pytest.mark.parametrize("factor", [1.002, float("nan")])
def test_a_gpu_that_computes_wrongly_is_refused(gpu, name, factor, caplog):
    """Its volume would show a crystal that is not there."""
    gpu[0][name] = factor
    with pytest.raises(
        ValueError, match=rf"'cuda:0' is refused: .*{name}.*update its driver.*'cpu'"
    ):
        prove("cuda:0")
    assert "failed" in caplog.text
    with pytest.raises(ValueError, match="refused"):
        prove("cuda:0")


def test_apples_gpu_is_taken_only_after_the_test(gpu):
    gpu[0]["the prior"] = 1.5
    with pytest.raises(ValueError, match=r"'mps' is refused: .*convolutions wrongly"):
        prove("mps")
    with pytest.raises(ValueError, match="refused"):
        devices.require_device("mps")
    gpu[0].clear()
    prove("mps")
    assert devices.require_device("mps") == "mps"


def test_a_test_that_cannot_run_is_no_proof(gpu, monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr(module, "_results", full)
    with pytest.raises(
        ValueError, match=r"self-test cannot run on 'cuda:0' .*out of memory.*free the device"
    ):
        prove("cuda:0")


def test_every_run_on_a_gpu_begins_with_it(gpu):
    """Scripts, command line and docks alike: `solve` asks, not the caller."""
    from dataclasses import replace

    from ..reconstruction.test_solvers import make_problem

    gpu[0]["its gradient"] = 1.1
    problem = replace(make_problem()[0], device="cuda:0")
    for name in SOLVERS:
        entry = SOLVERS[name]
        try:
            settings = entry.default()
        except ImportError:
            continue
        with pytest.raises(ValueError, match="does not compute what the CPU computes"):
            next(iter(solve(problem, settings)))


def test_the_results_are_of_one_size(gpu):
    values = module._results("cpu")
    assert all(v.dtype == torch.float32 for v in values.values())
    assert np.isfinite([float(v.norm()) for v in values.values()]).all()
