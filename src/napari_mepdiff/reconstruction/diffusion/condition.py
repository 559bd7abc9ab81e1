"""What the network is given beside the noisy volume: an ordinary solution, or the atoms so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from ...prior.condition import Condition
from ..control import Companion
from ..frame import Frame
from ..ordinary.lbfgs import LBFGSSettings, lbfgs
from ..run import Run
from .info import DiffusionInfo
from .posterior import Posterior
from .settings import DPSSettings

PER_FRAME = 10  # evaluations of the gradient


def ordinary_solution(run: Run[DPSSettings], stride: int) -> Iterator[Frame]:
    """Non-negative L-BFGS on the Poisson misfit of all positions.

    It finds the sum over depth, and what it can of depth. Frames of step 0; the last has the
    solution.
    """
    s = run.settings
    settings = LBFGSSettings(
        misfit="poisson",
        non_negative=True,
        batch=None,
        learning_rates=(1.0,),
        evaluations=PER_FRAME,
        iterations=max(1, round(s.evaluations / PER_FRAME)),
        line_search=True,
        detector_stride=stride,
        memory=s.memory,
    )
    for frame in lbfgs(Run(run.problem, settings, Companion(run.control), None)):
        stage = f"ordinary solution, {frame.step} of {frame.total}"
        yield Frame(
            0, s.steps, frame.volume, frame.loss, None, run.seconds, DiffusionInfo(stage=stage)
        )


def condition_on(
    posterior: Posterior, phase: Tensor, trust: float, what: Literal["sum", "volume"]
) -> Condition:
    """A volume (D, H, W) in rad, or its sum over depth, as the prior takes it.

    Parameters
    ----------
    trust : float
        Expected depth correlation of the volume with the specimen.
    """
    known = posterior.grid.to_prior(phase) / posterior.prior.scale
    if what == "sum":
        return Condition.from_sum(known.sum(dim=0).cpu(), known.shape[0])
    return Condition.from_volume(known.cpu(), trust)
