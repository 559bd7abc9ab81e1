"""Frames of a run: what is seen of a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..frame import Frame
from .info import DiffusionInfo
from .posterior import Posterior


def make_frame(
    posterior: Posterior,
    step: int,
    volumes: Tensor,
    misfit: float,
    info: DiffusionInfo,
    *,
    last: Tensor | None = None,
    before: Tensor | None = None,
    log_snr: float | None = None,
    answers: Tensor | None = None,
) -> tuple[Frame, Tensor]:
    """A frame of the mean of volumes (K, D, H, W) in rad.

    Parameters
    ----------
    last : Tensor, optional
        Scaled volume of the step before, on the CPU.
    before : Tensor, optional
        x-predictions before guidance, (K, D, H, W) in rad.
    answers : Tensor, optional
        (n, D, H, W) in rad, of which the spread is shown.

    Returns
    -------
    Frame
    Tensor
        The mean, scaled, on the CPU.
    """
    mean = volumes.mean(dim=0)
    arrays: dict[str, NDArray[np.float32]] = {}
    if before is not None:
        arrays["x_theta"] = _array(before.mean(dim=0))
    if answers is not None and len(answers) > 1:
        arrays["std"] = _array(answers.std(dim=0))
        arrays["agreement"] = _array(agreement(answers))
    latest = posterior.grid.to_prior(mean).cpu()
    if last is not None:
        change = float((latest - last).square().mean().sqrt()) / posterior.prior.scale
        info = replace(info, change=change)
    info = replace(info, misfit_per_electron=posterior.term.per_electron(misfit))
    run = posterior.run
    frame = Frame(
        step, run.settings.steps, _array(mean), misfit, log_snr, run.seconds, info, arrays
    )
    return frame, latest


def agreement(volumes: Tensor) -> Tensor:
    """Share of the samples (K, D, H, W) that agree whether an atom is in a voxel, ½ to 1 (D, H, W).

    There is one for a sample where it exceeds half of what is highest over depth in the samples'
    mean.
    """
    bar = volumes.mean(dim=0).amax(dim=0, keepdim=True) / 2
    share = (volumes > bar.clamp(min=1e-6)).float().mean(dim=0)
    return torch.maximum(share, 1 - share)


def _array(x: Tensor) -> NDArray[np.float32]:
    return x.detach().to("cpu", torch.float32).numpy().copy()
