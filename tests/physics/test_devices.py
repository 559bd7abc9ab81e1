"""The likelihood on a GPU, without one: torch's fake tensors follow device and type of every
operation.

An operation between a tensor on the GPU and one left on the CPU, or of complex and real numbers
where that is not allowed, fails here as it would there. Values are not computed. What fakes cannot
follow, and what only the tests marked ``gpu`` show, on a machine that has one:

- the number itself: ``float(loss)`` waits for the GPU; it is replaced here by one that returns 1;
- the default background, which is read off the probe (``default_background``): it is given here;
- shot noise and mean pattern (``Patterns.mean``), the constants of the Poisson misfit on the CPU's
  own engine
  (``Patterns.constants``), the Fisher matrix's choice of detector pixels (``weight > 0``): they
  depend on data;
- memory that runs out, determinism, and the digits of cuFFT.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from napari_mepdiff.physics.likelihood import Likelihood

from ..fake import fake_gpu, followed

pytestmark = followed
N, WINDOW, SLICES = 10, 32, 3


@pytest.fixture
def gpu(monkeypatch):
    """Everything that is made inside lies on a GPU that is not there."""
    monkeypatch.setattr(FakeTensor, "__float__", lambda self: 1.0, raising=False)
    with fake_gpu() as mode:
        yield mode


def _likelihood(boundary="extended", **options):
    rng = np.random.default_rng(0)
    canvas = (48, 44) if boundary == "extended" else (32, 32)
    positions = rng.uniform(3.6, 5.4, (N, 2))
    counts = rng.poisson(2.0, (N, WINDOW, WINDOW)).astype(np.float32)
    probe = torch.from_numpy(rng.normal(size=(2, WINDOW, WINDOW)) + 0j)
    options = {"background": 1e-3, "device": "cuda", **options}
    return Likelihood(
        counts, probe, positions, (SLICES, *canvas), pixel_size=(0.2, 0.2),
        slice_thickness=[1.6, 2.0, 1.6], energy=300.0, boundary=boundary, **options,
    )  # fmt: skip


def _is(tensor, shape, dtype, device="cuda"):
    assert tuple(tensor.shape) == tuple(shape)
    assert tensor.dtype == dtype
    assert tensor.device.type == device


@pytest.mark.parametrize("misfit", ["intensity", "amplitude", "poisson"])
@pytest.mark.parametrize("boundary", ["periodic", "extended"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_all_gradients_stay_on_the_gpu(gpu, misfit, boundary, stride, dtype):
    like = _likelihood(boundary, misfit=misfit, detector_stride=stride, dtype=dtype)
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    for volume in (torch.zeros(like.shape), torch.zeros(like.shape, device="cuda", dtype=dtype)):
        loss, gradient = like(volume, [1, 4, 7])
        assert loss == 1.0
        _is(gradient, like.shape, dtype)
        found = like.gradients(volume, probe=True, positions=True)
        _is(found.volume, like.shape, dtype)
        _is(found.probe, (2, WINDOW // stride, WINDOW // stride), complex_dtype)
        _is(found.positions, (N, 2), torch.float64, "cpu")  # positions are moved on the CPU
        assert like.loss(volume) == 1.0
    _is(like.patterns(volume, [0, 3]), (2, WINDOW // stride, WINDOW // stride), dtype)
    _is(like.counts([0, 3]), (2, WINDOW // stride, WINDOW // stride), dtype, "cpu")
    _is(like.weight, (WINDOW // stride, WINDOW // stride), dtype)


@pytest.mark.parametrize("options", [
    {"band_limit": 2 / 3},
    {"mask": np.tri(WINDOW)},
    {"mask": np.ones((WINDOW, WINDOW)), "band_limit": 2 / 3, "detector_stride": 2},
    {"propagator": "exact"},
])  # fmt: skip
def test_mask_and_band_limit_go_along(gpu, options):
    like = _likelihood(misfit="poisson", **options)
    found = like.gradients(torch.zeros(like.shape), probe=True, positions=True)
    _is(found.volume, like.shape, torch.float32)
    if "propagator" not in options:
        _is(like.data.weight, like.weight.shape, torch.float32)


def test_gaps_can_be_replaced_and_refined(gpu):
    like = _likelihood(band_limit=2 / 3)
    like.set_gaps([2.0, 2.4], (3.0, -4.0))
    for h in like.model.propagators:
        _is(h, (WINDOW, WINDOW), torch.complex64)
    found = like.gradients(torch.zeros(like.shape), gaps=True)
    _is(found.volume, like.shape, torch.float32)
    _is(found.thickness, (SLICES - 1,), torch.float64, "cpu")
    _is(found.tilt, (2,), torch.float64, "cpu")


def test_a_real_detector_goes_along(gpu):
    like = _likelihood(misfit="poisson")
    like.set_detector(blur=0.8, background=0.1, image=np.ones((WINDOW, WINDOW)))
    found = like.gradients(torch.zeros(like.shape), gaps=True, detector=True)
    _is(found.volume, like.shape, torch.float32)
    assert (found.background, found.blur) == (1.0, 1.0)
    _is(like.patterns(torch.zeros(like.shape), [0]), (1, WINDOW, WINDOW), torch.float32)


def test_patterns_that_do_not_fit_there_go_part_by_part(gpu):
    like = _likelihood(misfit="amplitude", memory=N * WINDOW * WINDOW * 4)
    assert like.data._near is None
    assert like.engine.chunk < N
    _is(like(torch.zeros(like.shape))[1], like.shape, torch.float32)


def test_probe_and_positions_can_be_replaced(gpu):
    like = _likelihood()
    like.set_probe(torch.ones(1, WINDOW, WINDOW, dtype=torch.complex128))
    _is(like.probe, (1, WINDOW, WINDOW), torch.complex64)
    like.set_positions(np.full((N, 2), 4.1))
    _is(
        like.gradients(torch.zeros(like.shape), probe=True).probe,
        like.probe.shape,
        like.complex_dtype,
    )


def test_a_tensor_left_behind_is_found(gpu):
    """The method itself: it must fail where a GPU would."""
    like = _likelihood()
    like.model.propagators = [h.cpu() for h in like.model.propagators]
    with pytest.raises(RuntimeError, match="device"):
        like(torch.zeros(like.shape))
