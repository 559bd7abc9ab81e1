"""Causes that a volume has adapted to, found by letting it go on with a free microscope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...physics.likelihood import Likelihood
from .changes import Changes, Light
from .gather import gather
from .model import Modelled
from .relax import Gone, go_on
from .result import Cause
from .tally import Tally, tally, variance
from .weigh import net_gain, weigh
from .words import cause_of, of_unfinished

SHARE = 0.03  # of the misfit above shot noise, that a free microscope must bring
CLEAR = 0.15  # of what the free microscope brings: below that a part of it is not named
UNFINISHED = 0.3  # of the misfit above shot noise, that the volume alone must bring

Report = Callable[[float], None]


@dataclass(frozen=True)
class Relaxed:
    """What is known after a volume was let go on.

    Attributes
    ----------
    causes : list of Cause
        What the volume hid; the strongest first, an unfinished volume last.
    lasting : dict
        By name of a cause: how far the misfit of a position still falls by it, in sums of squares
        over variance.
    """

    causes: list[Cause]
    lasting: dict[str, float]


def relaxed(
    like: Likelihood, volume: torch.Tensor, light: Light, names: list[str], report: Report
) -> Relaxed:
    """Let a volume go on, and ask again.

    Parameters
    ----------
    like : Likelihood
        Of neighbouring positions, their values in electrons, faulty pixels masked.
    volume : Tensor
        (D, H, W), rad.
    light : Light
    names : list of str
        Causes of which it is asked whether they last.
    report : callable
        Told the fraction done; may raise.
    """
    index = np.arange(like.count)
    weight = like.weight.cpu().numpy().astype(np.float64)
    changes = Changes(Modelled(like, volume), light)
    misfit = tally(changes.model, index, weight, lambda f: report(0.1 * f)).misfit
    gone = go_on(like, volume, changes, lambda f: report(0.1 + 0.6 * f))
    excess = gone.start * (1 - 1 / misfit)
    if excess <= 0:
        return Relaxed([], {})
    changes = Changes(Modelled(like, gone.volume), light)
    seen = tally(changes.model, index, weight, lambda f: report(0.7 + 0.1 * f))
    places = like.positions.numpy()
    normal = gather(
        changes.model, changes, index, places, weight, seen, 1.0, lambda f: report(0.8 + 0.2 * f)
    )
    lasting = {n: net_gain(normal, n) / like.count for n in names}
    causes: list[Cause] = []
    share = min(1.0, gone.microscope / excess)
    if share > SHARE:
        whole = normal.misfit - _with_the_other(like, gone, seen, weight)
        found = weigh(normal, excess=whole, least=CLEAR)
        total = max(1.0, sum(f.share for f in found))
        causes = [cause_of(f, changes, share * f.share / total) for f in found]
    alone = min(1.0, (gone.start - gone.alone) / excess)
    if alone > UNFINISHED:
        causes.append(of_unfinished(alone, bool(causes)))
    return Relaxed(causes, lasting)


def _with_the_other(
    like: Likelihood, gone: Gone, seen: Tally, weight: NDArray[np.float64]
) -> float:
    """Sum of squares over variance with the microscope that formed beside the volume."""
    before = (like.spectrum, like.positions.clone(), like.tilt)
    like.spectrum = gone.spectrum
    like.set_positions(gone.places)
    tilted = like.model.slices > 1
    if tilted:
        like.set_gaps(tilt=gone.tilt)
    try:
        model, total = Modelled(like, gone.volume), 0.0
        for part in np.array_split(np.arange(like.count), max(1, like.count // 16)):
            base = model.patterns(part)
            around = variance(base, seen, 1.0)
            total += float((np.square(model.counts(part) - base) / around * weight).sum())
    finally:
        like.spectrum = before[0]
        like.set_positions(before[1])
        if tilted:
            like.set_gaps(tilt=before[2])
    return total
