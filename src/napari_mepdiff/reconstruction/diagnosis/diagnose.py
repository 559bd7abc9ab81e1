"""The diagnosis of a volume: what its misfit is made of, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ...physics.likelihood import Likelihood
from ..frame import RefineInfo
from ..problem import Problem
from .changes import Changes, illumination_of
from .detector import faulty_pixels, gain_in
from .gather import gather, next_steps
from .model import Modelled
from .patch import patch_of
from .relaxed import relaxed
from .result import WELL, Cause, Diagnosis, Pictures
from .sample import MOST, spread_sample
from .tally import Tally, angles_of, pictures, tally
from .trials import try_out
from .weigh import LEAST, weigh
from .where import where_it_is
from .words import cause_of, of_gain, of_pixels, said

TOO_WELL = 0.5  # of shot noise: counted electrons scatter more than that

ADAPTS = (
    "defocus",
    "astigmatism",
    "coma",
    "threefold",
    "spherical",
    "scan",
    "positions",
    "tilt",
    "probe",
)
MINOR = 0.1  # share
LASTS = 0.2  # of a share that must be left when the volume has gone on
SPOILED = 0.3  # share
ADAPTED = 0.5  # share that is explained, below which the volume is said to hide some

Report = Callable[[float], None]


def diagnose(
    problem: Problem,
    volume: NDArray[np.float32],
    found: RefineInfo | None = None,
    report: Report | None = None,
) -> Diagnosis:
    """Say what the misfit of a volume is made of.

    Patterns of the volume are modelled at up to 150 positions of the scan and compared with what
    was measured there; then each cause that the physics knows is tried: by how much would the
    misfit fall if the probe, the scan, the specimen's tilt or the detector were a little different?

    Parameters
    ----------
    problem : Problem
        With its patterns.
    volume : ndarray
        (D, H, W), rad.
    found : RefineInfo, optional
        The microscope that the run found: it is then that one which is judged.
    report : callable, optional
        Told the fraction done; may raise to end the work.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        If the volume is not on the grid of the problem, or its patterns were released.
    """
    tell = report or (lambda _: None)
    if len(problem.patterns) == 0:
        raise ValueError("the patterns of this run were let go: open its measurement again")
    x = torch.from_numpy(np.array(volume, np.float32))
    like = _likelihood(problem, found)
    if tuple(x.shape) != tuple(like.shape):
        raise ValueError(f"the volume is {tuple(x.shape)}, the problem asks for {like.shape}")
    if not torch.isfinite(x).all():
        return Diagnosis(math.nan, "unknown", "The volume holds values that are no numbers: the "
                         "run has diverged; take smaller steps.")  # fmt: skip
    like.poll = lambda: tell(0.0)
    judged, others = spread_sample(like.positions.numpy())
    looked = judged if like.count > MOST else np.arange(like.count)
    model = Modelled(like, x)
    weight = like.weight.cpu().numpy().astype(np.float64)
    seen = tally(model, looked, weight, lambda f: tell(0.15 * f))
    places = like.positions.numpy()[judged]
    light = illumination_of(
        problem.optics if found is None else None,
        problem.told if found is None else found.optics or problem.told,
        like.probe,
        problem.energy,
        like.pixel_size,
    )
    changes = Changes(model, light)
    angle = angles_of(weight.shape, changes.pixel_mrad)
    edge = np.abs(angle - light.optics.semi_angle) < 2.5 * max(changes.pixel_mrad)
    origin = np.array(problem.origin[1:])
    shown = pictures(
        seen,
        weight,
        changes.pixel_mrad,
        light.optics.semi_angle,
        like.positions.numpy()[looked] + origin,
    )
    dark = _dark_misfit(seen, weight)
    gain = gain_in(problem.patterns, problem.positions, judged, weight > 0, dark)
    if gain is None and seen.misfit < TOO_WELL:
        return Diagnosis(
            seen.misfit,
            "unknown",
            f"The misfit is {seen.misfit:.2g} × shot noise: counted electrons scatter more than "
            "that. The patterns are normalised, averaged or simulated without noise, and their "
            "misfit says nothing.",
            pictures=shown,
            looked_at=len(looked),
        )
    if gain is None and seen.misfit <= WELL:
        return Diagnosis(
            seen.misfit,
            "well",
            f"The misfit is {seen.misfit:.3g} × shot noise: nothing is wrong that these patterns "
            "could show.",
            pictures=shown,
            looked_at=len(looked),
        )
    one = 1.0 if gain is None else gain.value
    faulty = faulty_pixels(seen, weight, edge, one)
    good = np.where(faulty, 0.0, weight)
    left = 1.0
    causes: list[Cause] = []
    if gain is not None:
        after = max(_whole(seen, good, one), 0.0) / good.sum()
        share = _share_of_gain(gain.value, 1 + after)
        causes.append(of_gain(gain.value, gain.exact, share))
        left -= share
    if faulty.any():
        whole = _whole(seen, weight, one)
        share = left * min(1.0, float((seen.chi2 / one - 1)[faulty].sum()) / whole)
        causes.append(of_pixels([(int(a), int(b)) for a, b in np.argwhere(faulty)], share))
        left = max(0.0, left - share)
    for tried in try_out(model, changes, judged, good, seen, one):
        words, remedy = said(tried.name, tried.values, changes)
        causes.append(Cause(tried.name, words, left * tried.share, remedy))
    spoiled = faulty.any() or any(c.name == "centre" for c in causes)
    left = max(0.0, left - sum(c.strength for c in causes if c.name in ("centre", "defocus")))
    tell(0.2)
    if model.offset == (0, 0):
        changes.volume, changes.probe = next_steps(like, x, others)
    normal = gather(model, changes, judged, places, good, seen, one, lambda f: tell(0.2 + 0.4 * f))
    known = {c.name for c in causes}
    by_step = [cause_of(f, changes, left * f.share) for f in weigh(normal)]
    if sum(c.strength for c in [*causes, *by_step]) < ADAPTED and not spoiled:
        cut, part, info = patch_of(problem, x.numpy(), like.positions.numpy(), found, good, one)
        after = relaxed(
            _likelihood(cut, info),
            torch.from_numpy(part),
            light,
            [c.name for c in by_step],
            lambda f: tell(0.6 + 0.4 * f),
        )
        excess = max(normal.misfit - normal.expected, 1e-12) / len(judged)
        lasting = {n: left * g / excess for n, g in after.lasting.items()}
        by_step = merged(by_step, after.causes, lasting)
    elif spoiled:  # what else would help a spoiled volume says little
        by_step = [c for c in by_step if c.strength > SPOILED]
    causes += [c for c in by_step if c.name not in known]
    tell(1.0)
    return _said(seen, causes, where_it_is(shown, seen), shown, len(looked))


def merged(by_step: list[Cause], hidden: list[Cause], lasting: dict[str, float]) -> list[Cause]:
    """What small changes explain and still do when the volume has gone on, and what it hid."""
    if not hidden:
        return by_step
    names = {*ADAPTS, *(h.name for h in hidden)}
    kept = [
        c
        for c in by_step
        if c.name not in names and lasting.get(c.name, 0.0) > max(LASTS * c.strength, MINOR / 2)
    ]
    return [*hidden, *kept]


def _likelihood(problem: Problem, found: RefineInfo | None) -> Likelihood:
    probe = None if found is None else torch.from_numpy(np.array(found.probe))
    like = problem.likelihood("poisson", probe=probe)
    assert isinstance(like, Likelihood)
    if found is not None:
        like.set_positions(torch.from_numpy(np.array(found.positions)))
        if like.model.slices > 1:
            like.set_gaps(tilt=found.tilt)
        like.set_detector(background=found.background)
    return like


def _whole(seen: Tally, weight: NDArray[np.float64], gain: float = 1.0) -> float:
    """Misfit above shot noise, in sums of squares over variance."""
    return max(float((weight * (seen.chi2 / gain - 1)).sum()), 1e-12)


def _dark_misfit(seen: Tally, good: NDArray[np.float64]) -> float:
    """Misfit over shot noise of the darker half of the pixels that have counts."""
    lit = (good > 0) & (seen.counts > 0)
    if not lit.any():
        return math.nan
    dark = lit & (seen.counts <= np.median(seen.counts[lit]))
    return float(np.median(seen.chi2[dark]))


def _share_of_gain(gain: float, misfit_in_electrons: float) -> float:
    """Of the misfit above shot noise, as it is before the values are divided."""
    before = gain * misfit_in_electrons
    if gain < 1:
        return 1.0
    return min(1.0, (gain - 1) * misfit_in_electrons / max(before - 1, 1e-9))


def _said(seen: Tally, causes: list[Cause], where: str, shown: Pictures, count: int) -> Diagnosis:
    # wrong values spoil the volume, and with it what can be said of all else
    certain = ("gain", "faulty pixels", "centre")
    causes = [c for c in causes if c.strength > LEAST or c.name in certain]
    order = {"faulty pixels": -1, "centre": -1, "unfinished": 1}
    causes.sort(key=lambda c: (order.get(c.name, 0), -c.strength))
    explained = sum(c.strength for c in causes if c.name != "unfinished")
    much = f"The misfit is {seen.misfit:.3g} × shot noise"
    if not causes:
        text = (
            f"{much}, and none of the causes that can be tried explains it. Check what they do not "
            "cover: orientation of the scan, the order of the patterns, the number of slices."
        )
        return Diagnosis(seen.misfit, "unknown", text, tuple(causes), where, shown, count)
    if explained == 0:
        return Diagnosis(seen.misfit, "explained", f"{much}.", tuple(causes), where, shown, count)
    text = f"{much}. What follows explains {100 * min(1.0, explained):.0f} % of what is above it"
    if explained < ADAPTED:
        text += ", at least: the volume has adapted to what is wrong and hides most of it"
    text += "."
    return Diagnosis(seen.misfit, "explained", text, tuple(causes), where, shown, count)
