"""What only a machine with a CUDA GPU can show.

The numbers of the CPU, memory that runs out, runs that repeat. Run by ``make test-gpu``; skipped
elsewhere. What can be seen without a GPU, which tensors lie where, is tested on fake tensors
beside the code.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction.registry import SOLVERS, solve
from tests.prior.nets import noise, tiny
from tests.reconstruction.small import crystal_problem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    tiny().save(path)
    return str(path)


@pytest.fixture
def little_memory():
    """A limit that the allocator enforces as a smaller GPU would; lifted again afterwards."""

    def limit(free_bytes: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        wanted = torch.cuda.memory_reserved() + free_bytes
        torch.cuda.set_per_process_memory_fraction(min(1.0, wanted / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def _on(problem, device):
    return dataclasses.replace(problem, device=device)


@pytest.mark.parametrize("misfit", ["intensity", "amplitude", "poisson"])
@pytest.mark.parametrize("boundary", ["periodic", "extended"])
def test_likelihood_and_gradient_are_those_of_the_cpu(misfit, boundary):
    problem, truth = crystal_problem(boundary=boundary)
    volume = torch.from_numpy(0.8 * truth)
    loss, gradient = problem.likelihood(misfit)(volume)
    there_loss, there = _on(problem, "cuda").likelihood(misfit)(volume.cuda())
    assert there.device.type == "cuda"
    assert there_loss == pytest.approx(loss, rel=1e-3)
    assert (there.cpu() - gradient).norm() < 1e-3 * gradient.norm()


def test_gradients_by_tilt_thickness_and_detector_are_those_of_the_cpu():
    problem, truth = crystal_problem()
    volume, found = torch.from_numpy(0.8 * truth), []
    for device in ("cpu", "cuda"):
        like = _on(problem, device).likelihood("poisson")
        like.set_gaps(4.0, (6.0, -9.0))
        like.set_detector(blur=0.8, background=0.05)
        found.append(like.gradients(volume, gaps=True, detector=True))
    here, there = found
    for name in ("volume", "thickness", "tilt"):
        a, b = getattr(here, name), getattr(there, name).cpu()
        assert (b - a).norm() < 1e-3 * a.norm(), name
    assert there.blur == pytest.approx(here.blur, rel=1e-3)
    assert there.background == pytest.approx(here.background, rel=1e-3)


def test_prior_and_its_vector_jacobian_product_are_those_of_the_cpu(prior_file):
    from napari_mepdiff.prior.model import Prior

    z, v = noise(1, 4, 32, 32, seed=1), noise(1, 4, 32, 32, seed=2)
    found = {}
    for device in ("cpu", "cuda"):
        prior = Prior.load(prior_file, device=device, precision="float32")
        x, pull = prior.vjp(z.to(device), -2.0, None)
        found[device] = [x.detach().cpu(), pull(v.to(device)).cpu()]
    for here, there in zip(found["cpu"], found["cuda"], strict=True):
        assert (there - here).norm() < 1e-3 * here.norm()


def _dps(problem, prior_file, **fields):
    settings = SOLVERS["dps"].default(
        prior=prior_file, precision="float32", elements=(), steps=6, evaluations=6, **fields
    )
    return list(solve(problem, settings))[-1]


def test_a_short_run_of_dps_ends_where_the_cpu_ends(prior_file):
    problem, _ = crystal_problem()
    here, there = (_dps(_on(problem, d), prior_file).volume for d in ("cpu", "cuda"))
    assert np.linalg.norm(there - here) < 2e-2 * np.linalg.norm(here)


def test_a_run_repeats(prior_file):
    """As far as the kernels are deterministic: the same up to float32's rounding."""
    problem = _on(crystal_problem()[0], "cuda")
    first, again = (_dps(problem, prior_file).volume for _ in range(2))
    assert np.allclose(first, again, rtol=1e-4, atol=1e-5)


def test_where_memory_runs_out_fewer_positions_go_through_at_once(little_memory):
    """A user of a small GPU had an error where half the positions would have fitted."""
    problem = _on(crystal_problem(scan=40)[0], "cuda")
    volume = torch.zeros(problem.shape, device="cuda")
    like = problem.likelihood("poisson", memory=8 * 1024**3)
    loss, gradient = like(volume)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    like(volume)
    needed = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    little_memory(needed // 4)
    less_loss, less = like(volume)
    assert less_loss == pytest.approx(loss, rel=1e-4)
    assert (less - gradient).norm() < 1e-3 * gradient.norm()


def test_what_cannot_fit_at_all_is_an_error_of_memory(little_memory):
    problem = _on(crystal_problem()[0], "cuda")
    like = problem.likelihood("poisson")
    volume = torch.zeros(problem.shape, device="cuda")
    little_memory(1 << 20)
    with pytest.raises((torch.OutOfMemoryError, MemoryError)):
        like(volume)
