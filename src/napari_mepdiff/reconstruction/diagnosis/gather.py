"""The columns of all positions, multiplied with each other as they come."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...physics.light import light_on_canvas
from ...physics.likelihood import Likelihood
from .changes import LOCAL, Changes
from .model import Modelled
from .normal import Normal, with_affine
from .tally import Report, Tally, variance

_BYTES = 192 * 1024**2  # for the columns of the positions that are gone through at once
_STEP = 0.02  # rad: the largest change of a voxel in a step of the volume
_DAMPING = 0.1


def gather(
    model: Modelled,
    changes: Changes,
    index: NDArray[np.int64],
    places: NDArray[np.float64],
    weight: NDArray[np.float64],
    seen: Tally,
    gain: float,
    report: Report,
) -> Normal:
    """Normal equations of the positions.

    Parameters
    ----------
    places : ndarray
        (B, 2), Å.
    weight : ndarray
        (Ky, Kx), of detector pixels.
    gain : float
        Values of one electron: the variance is so many times larger.
    """
    names = [*changes.wide, *LOCAL]
    size = max(1, _BYTES // (8 * weight.size * (len(names) + 6)))
    products = np.zeros((len(index), len(names) + 1, len(names) + 1))
    expected = 0.0
    for low in range(0, len(index), size):
        part = index[low : low + size]
        base = model.patterns(part)
        around = variance(base, seen, gain)
        root = np.sqrt(weight / around)
        table = np.empty((len(part), len(names) + 1, weight.size), np.float32)
        for at, (name, column) in enumerate(changes.columns(part, base)):
            assert name == names[at]
            table[:, at] = (column * root).reshape(len(part), -1)
            report((low + len(part) * (at + 1) / len(names)) / len(index))
        counts = model.counts(part)
        table[:, -1] = ((counts - base) * root).reshape(len(part), -1)
        products[low : low + size] = table @ table.transpose(0, 2, 1)
        # counts are an unbiased estimate of their own variance, whatever the model says
        expected += float((gain * counts / around * weight).sum())
    named, whole = with_affine(names, products, places)
    return Normal(tuple(named), whole, expected)


def next_steps(
    like: Likelihood, volume: torch.Tensor, others: NDArray[np.int64]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """A step of the volume, and of the probe's pixels, as other positions ask for it.

    Returns
    -------
    volume : Tensor or None
        (D, H, W), rad.
    probe : Tensor or None
        (M, Ky, Kx), a spectrum.
    """
    if len(others) == 0:
        return None, None
    g = like.gradients(volume, others, probe=True)
    assert g.volume is not None
    assert g.probe is not None
    light = light_on_canvas(like, others)
    step = -g.volume / (light + _DAMPING * light.max())
    largest = float(step.abs().max())
    of_probe = -torch.fft.fft2(g.probe.to(like.probe))
    lit = like.spectrum.abs().square().sum(dim=0)
    of_probe = of_probe * (lit > 1e-3 * lit.max())
    norm = float(of_probe.abs().square().sum()) ** 0.5
    scale = 0.02 * float(like.spectrum.abs().square().sum()) ** 0.5
    return (
        step * (_STEP / largest) if largest > 0 else None,
        of_probe * (scale / norm) if norm > 0 else None,
    )
