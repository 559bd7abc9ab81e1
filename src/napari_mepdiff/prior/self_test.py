"""Whether a device computes what the CPU computes: once per device, before the first run on it.

Prior and likelihood are evaluated on small random input, there and on the CPU, in float32. Wrong
kernels (of a driver, of PyTorch, of an overclocked card) do not raise: they give crystals that are
not there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.devices import doubtful, first_line, on_trial, require_device, trust
from ..physics.likelihood import Likelihood
from .model import Prior

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # relative; float32 on any processor is far below

_SHAPE = (8, 32, 32)
_passed: set[str] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class SelfTest:
    """How far a device is from the CPU.

    Attributes
    ----------
    device : str
    errors : mapping
        ‖there − CPU‖ / ‖CPU‖ by what was computed; not finite where the result is not.
    seconds : float
        Of the test.
    """

    device: str
    errors: Mapping[str, float]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all that was computed agrees within :data:`TOLERANCE`."""
        return all(error <= TOLERANCE for error in self.errors.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {error:.1e}" for name, error in self.errors.items())


def prove(device: str) -> SelfTest | None:
    """Make sure that results from a device can be relied on; the CPU is what others are held to.

    The test runs once per device and process, and the log says how it went.

    Returns
    -------
    SelfTest or None
        None if nothing had to be tested.

    Raises
    ------
    ValueError
        If the device is not there, or does not compute what the CPU computes.
    """
    if device.split(":")[0] == "cpu":
        return None
    with _lock:
        if device in _passed:
            return None
        with on_trial(device):
            require_device(device)
        try:
            found = self_test(device)
        except RuntimeError as error:
            raise ValueError(
                f"the self-test cannot run on {device!r} ({first_line(error)}); choose 'cpu', "
                "or free the device"
            ) from error
        if not found.passed:
            doubt = doubtful(device)
            log.error("self-test on %s failed: %s", device, found)
            raise ValueError(
                f"the device {device!r} is refused: it does not compute what the CPU computes "
                f"(relative error of {found}; allowed {TOLERANCE:g})"
                + (f"; {doubt}" if doubt else "; update its driver and PyTorch")
                + "; choose 'cpu'"
            )
        log.info("self-test on %s passed in %.1f s: %s", device, found.seconds, found)
        trust(device)
        _passed.add(device)
        return found


def self_test(device: str) -> SelfTest:
    """Evaluate prior and likelihood on a device and on the CPU.

    Parameters
    ----------
    device : str
        Such as ``"cuda:0"``.

    Returns
    -------
    SelfTest
        Of the prior's prediction, its vector–Jacobian product, the loss and its gradient.
    """
    begun = time.perf_counter()
    with on_trial(device):
        there = _results(device)
    here = _results("cpu")
    errors = {
        name: float((there[name].cpu() - value).norm() / value.norm())
        for name, value in here.items()
    }
    return SelfTest(device, errors, time.perf_counter() - begun)


def _results(device: str) -> dict[str, Tensor]:
    """What is compared, computed on a device in full float32 (no TF32), as float32 tensors
    there."""
    rng = np.random.default_rng(0)
    volume = torch.from_numpy(rng.normal(0.1, 0.3, _SHAPE)).float().to(device)
    pull_from = torch.from_numpy(rng.normal(size=_SHAPE)).float().to(device)
    prior = Prior.load(device=device, precision="float32")
    with torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=torch.backends.cudnn.benchmark,
        deterministic=torch.backends.cudnn.deterministic,
        allow_tf32=False,
    ):
        x, pull = prior.vjp(volume, 0.5)
        pulled = pull(pull_from)
    window = 32
    spectrum = rng.normal(size=(1, window, window)) + 1j * rng.normal(size=(1, window, window))
    likelihood = Likelihood(
        rng.poisson(4.0, (16, window, window)).astype(np.float32),
        torch.from_numpy(spectrum),
        rng.uniform(0, _SHAPE[1] * 0.2, (16, 2)),
        _SHAPE,
        pixel_size=(0.2, 0.2),
        slice_thickness=1.6,
        energy=300.0,
        misfit="poisson",
        device=device,
    )
    loss, gradient = likelihood(volume)
    return {
        "the prior": x,
        "its derivative": pulled,
        "the misfit": torch.tensor(loss, dtype=torch.float32),
        "its gradient": gradient,
    }
