"""Which causes explain the misfit: the strongest first, then what it leaves to the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .normal import AFFINE, Normal

LEAST = 0.02  # share of the misfit above shot noise, below which a cause is not named
CATCH_ALL = 0.25  # what the named causes must have left for those that say little
ALIKE = 0.8  # of the share of another cause, from which two cannot be told apart


ENOUGH = 0.6  # of what many numbers explain: one that explains so much by few is it
SIMPLER = {"positions": "scan", "spherical": "defocus"}


@dataclass(frozen=True)
class Hypothesis:
    """A cause and what it would change.

    Attributes
    ----------
    wide, local : tuple of str
        Columns, see :class:`.normal.Normal`.
    sign : int
        1: the coefficient of the first column cannot be negative; 0: it can.
    last : bool
        It could stand for many causes, so it is asked only where the others leave much.
    """

    wide: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    sign: int = 0
    last: bool = False


HYPOTHESES: Mapping[str, Hypothesis] = {
    "defocus": Hypothesis(("C10",)),
    "astigmatism": Hypothesis(("C12a", "C12b")),
    "coma": Hypothesis(("C21a", "C21b")),
    "threefold": Hypothesis(("C23a", "C23b")),
    "spherical": Hypothesis(("C30",)),
    "wide aperture": Hypothesis(("wider",), sign=1),
    "narrow aperture": Hypothesis(("narrower",), sign=1),
    "soft edge": Hypothesis(("soft_edge",), sign=1),
    "source size": Hypothesis(("source",), sign=1),
    "focal spread": Hypothesis(("focal_spread",), sign=1),
    "scan": Hypothesis(AFFINE),
    "positions": Hypothesis(local=("y", "x")),
    "current": Hypothesis(local=("current",)),
    "tilt": Hypothesis(("tilt_y", "tilt_x")),
    "thickness": Hypothesis(("thickness",)),
    "background": Hypothesis(("background", "electrons"), sign=1),
    "electrons": Hypothesis(("electrons",)),
    "blur": Hypothesis(("blur",), sign=1),
    "centre": Hypothesis(("centre_y", "centre_x")),
    "probe": Hypothesis(("probe",), sign=1, last=True),
    "unfinished": Hypothesis(("volume",), sign=1, last=True),
}


@dataclass(frozen=True)
class Found:
    """A cause that was found.

    Attributes
    ----------
    name : str
    share : float
        Of the misfit above shot noise, beyond the causes before it.
    alone : float
        The same without the causes before it.
    values : dict
        Coefficients of its columns, in steps.
    like : tuple of str
        Causes that would have explained nearly as much, and nothing beside it.
    """

    name: str
    share: float
    alone: float
    values: dict[str, float]
    like: tuple[str, ...] = ()


def weigh(
    normal: Normal, most: int = 3, excess: float | None = None, least: float = LEAST
) -> list[Found]:
    """Causes in the order in which they explain most of what is left.

    Parameters
    ----------
    normal : Normal
    most : int
        Causes that are named.
    excess : float, optional
        What is to be explained; the misfit above shot noise if not given.
    least : float
        Share of it below which a cause is not named.
    """
    excess = normal.misfit - normal.expected if excess is None else excess
    if excess <= 0:
        return []
    there = {
        name: h
        for name, h in HYPOTHESES.items()
        if all(c in normal.names for c in (*h.wide, *h.local))
    }
    alone = {name: _net(normal, [h])[0] / excess for name, h in there.items()}
    chosen: list[Found] = []
    taken: list[Hypothesis] = []
    before = 0.0
    while len(chosen) < most:
        left = 1 - before
        open_ = {
            n: h
            for n, h in there.items()
            if n not in {f.name for f in chosen} and (not h.last or left > CATCH_ALL)
        }
        gains = {n: _net(normal, [*taken, h])[0] / excess - before for n, h in open_.items()}
        named = {n: g for n, g in gains.items() if not there[n].last}
        best = max(named, key=lambda n: named[n], default="")
        if best in SIMPLER and named.get(SIMPLER[best], 0) > ENOUGH * named[best]:
            best = SIMPLER[best]
        if not best or named[best] < least:
            best = max(gains, key=lambda n: gains[n], default="")
        if not best or gains[best] < least:
            break
        hypothesis = there[best]
        taken.append(hypothesis)
        total, values = _net(normal, taken)
        like = tuple(
            n
            for n, g in named.items()
            if n != best
            and g > ALIKE * gains[best]
            and _net(normal, [*taken, there[n]])[0] / excess - total / excess < 0.3 * g
        )
        own = {c: values[c] for c in hypothesis.wide}
        chosen.append(Found(best, gains[best], alone[best], own, like))
        before = total / excess
    return chosen


def net_gain(normal: Normal, name: str) -> float:
    """How far the misfit falls by one cause alone, less what chance brings; 0 if it cannot be."""
    h = HYPOTHESES.get(name)
    if h is None or not all(c in normal.names for c in (*h.wide, *h.local)):
        return 0.0
    return max(0.0, _net(normal, [h])[0])


def _net(normal: Normal, hypotheses: list[Hypothesis]) -> tuple[float, dict[str, float]]:
    """Gain of some hypotheses together, less what as many chance directions would bring."""
    wide = list(dict.fromkeys(c for h in hypotheses for c in h.wide))
    local = list(dict.fromkeys(c for h in hypotheses for c in h.local))
    gain, coefficients = normal.gain(wide, local)
    values = dict(zip(wide, map(float, coefficients), strict=True))
    if any(h.sign and values[h.wide[0]] < 0 for h in hypotheses):
        last = hypotheses[-1]
        if len(hypotheses) > 1 and last.sign and values[last.wide[0]] < 0:
            return _net(normal, hypotheses[:-1])  # what cannot be brings nothing
        if len(hypotheses) == 1:
            return 0.0, values
    spread = max(1.0, (normal.misfit - gain) / normal.expected)
    count = len(wide) + len(local) * len(normal.products)
    return gain - spread * count, values
