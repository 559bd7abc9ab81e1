"""Large errors that no small change finds, tried: a focus far off, patterns off the centre.

A few values are put into the model of some positions, and the one that fits best is kept, if it
explains a good part of the misfit; what small changes say is then asked at that value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...measurement.dataset import DataError
from ...measurement.detectors import find_disk
from ...physics.misfit import relative_deviance
from .changes import Changes
from .model import Modelled
from .tally import Tally

_POSITIONS = 40
_FOCI = (5, 10, 20, 40)  # steps of 0.1 rad at the edge of the aperture
_REACH = 8  # pixels that patterns may be off the centre; more is another mistake
_WORTH = 0.15  # share of the misfit above shot noise that a trial must explain


@dataclass(frozen=True)
class Tried:
    """A large error that was found.

    Attributes
    ----------
    name : str
    share : float
        Of the misfit above shot noise.
    values : dict
        By column, in its unit (Å, px).
    """

    name: str
    share: float
    values: dict[str, float]


def try_out(
    model: Modelled,
    changes: Changes,
    index: NDArray[np.int64],
    good: NDArray[np.float64],
    seen: Tally,
    gain: float,
) -> list[Tried]:
    """Try centres and foci; the model then has those that help.

    Parameters
    ----------
    index : ndarray
        Positions to judge by.
    good : ndarray
        (Ky, Kx), weights of pixels that measure.
    gain : float
        Values of one electron.
    """
    some = index[:: max(1, len(index) // _POSITIONS)]
    base = model.patterns(some)

    def misfit(patterns: NDArray[np.float64]) -> float:
        return relative_deviance(model.counts(some) / gain, patterns / gain, good) - 1

    whole = before = misfit(base)
    found: list[Tried] = []
    if whole <= 0:
        return found
    beam = model.spectrum.abs().square().sum(dim=0)
    offset = _offset(seen, good, torch.fft.fftshift(beam).double().cpu().numpy())
    if offset != (0, 0):
        model.offset = offset
        values = {"centre_y": float(offset[0]), "centre_x": float(offset[1])}
        # a volume that has adapted to it may fit worse at once: the disk is off all the same
        share = max(0.0, (before - misfit(base)) / whole)
        found.append(Tried("centre", share, values))
        if share > _WORTH:
            before = misfit(base)
        else:
            return found
    turn, spectrum = changes.turn("C10"), model.spectrum
    foci = {
        sign * steps: misfit(model.patterns(some, spectrum * turn ** (sign * steps)))
        for steps in _FOCI
        for sign in (1, -1)
    }
    best = min(foci, key=lambda k: foci[k])
    share = (before - foci[best]) / whole
    if share > _WORTH:
        changes.refocus(best)
        found.append(Tried("defocus", share, {"C10": best * changes.steps["C10"]}))
    return found


def _offset(seen: Tally, good: NDArray[np.float64], beam: NDArray[np.float64]) -> tuple[int, int]:
    """By how many pixels (y, x) the bright disk of the mean pattern is off that of the beam.

    The edge of the disk is of the aperture: no volume moves it.
    """
    try:
        measured, modelled = (find_disk(v * good) for v in (seen.counts, beam))
    except DataError:  # no counts
        return 0, 0
    # a specimen that leans to one side moves the disk's middle by a part of a pixel
    y, x = (
        int(math.copysign(math.floor(abs(a - b) + 0.3), a - b))
        for a, b in zip(measured.centre, modelled.centre, strict=True)
    )
    return (y, x) if max(abs(y), abs(x)) <= _REACH else (0, 0)
