"""Errors of the illumination as a microscopist says them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .changes import Changes
from .remedies import MODES, PROBE
from .result import Remedy

Values = Mapping[str, float]
"""Errors in their units: Å, mrad, detector pixels, electrons; by column."""
Said = tuple[str, Remedy | None]
Saying = Callable[[Values, Changes], Said]


def _aberration(name: str, column: str) -> Callable[[Values, Changes], tuple[str, Remedy]]:
    def say(v: Values, _: Changes) -> tuple[str, Remedy]:
        a, b = v[column + "a"], v[column + "b"]
        return (
            f"The probe has {name} that the model does not have: {column} differs by about "
            f"{math.hypot(a, b):.2g} Å.",
            PROBE,
        )

    return say


def _defocus(v: Values, changes: Changes) -> tuple[str, Remedy]:
    told = changes.told.overfocus
    way = "more" if v["C10"] > 0 else "less"
    at = f" (the model has {told:.4g} Å)" if changes.light.made else ""
    return (
        f"The defocus is wrong: the probe wants about {abs(v['C10']):.2g} Å {way} overfocus{at}; "
        "the real error may be several times that, since the volume has adapted to it.",
        PROBE,
    )


def _spherical(v: Values, _: Changes) -> tuple[str, Remedy]:
    return f"The spherical aberration C30 is off by about {v['C30']:.2g} Å.", PROBE


def _aperture(column: str, sign: int) -> Callable[[Values, Changes], tuple[str, Remedy]]:
    def say(v: Values, changes: Changes) -> tuple[str, Remedy]:
        told = changes.told.semi_angle
        limit = changes.steps[column] * 2  # the step is what was tried: not far beyond it
        wanted = round(told + sign * min(v[column], limit), 2)
        size = "larger" if sign > 0 else "smaller"
        return (
            f"The bright disk is {size} than the semi-angle says: about {wanted:g} mrad, the model "
            f"has {told:g} mrad.",
            Remedy(
                f"Set the semi-angle to {wanted:g} mrad",
                f"--semi-angle {wanted:g}",
                preparation={"semi_angle": wanted},
            ),
        )

    return say


def _soft_edge(v: Values, changes: Changes) -> tuple[str, Remedy]:
    told = changes.told.soft_edge
    has = f"the model's is {told:.2g} mrad wide" if told else "the model has a hard one"
    return (
        "The misfit stands in a ring at the edge of the bright disk: the aperture has a soft edge "
        f"and {has}.",
        PROBE,
    )


def _source(v: Values, changes: Changes) -> tuple[str, Remedy]:
    size = changes.steps["source"] * math.sqrt(max(v["source"] / changes.steps["source"], 0))
    return (
        f"The source is not a point: the patterns are those of a probe smeared by about "
        f"{size:.2g} Å rms (source size, vibration, or a specimen whose atoms tremble).",
        MODES,
    )


def _focal(v: Values, changes: Changes) -> tuple[str, Remedy]:
    step = changes.steps["focal_spread"]
    size = step * math.sqrt(max(v["focal_spread"] / step, 0))
    return (
        f"The patterns are a mean over foci, about {size:.2g} Å rms (focal spread): the model has "
        "one focus.",
        MODES,
    )


def _probe(_v: Values, _c: Changes) -> tuple[str, Remedy]:
    return (
        "The probe is otherwise than told, in a way that no single aberration describes.",
        PROBE,
    )


SAYING: Mapping[str, Saying] = {
    "defocus": _defocus,
    "astigmatism": _aberration("twofold astigmatism", "C12"),
    "coma": _aberration("coma", "C21"),
    "threefold": _aberration("threefold astigmatism", "C23"),
    "spherical": _spherical,
    "wide aperture": _aperture("wider", 1),
    "narrow aperture": _aperture("narrower", -1),
    "soft edge": _soft_edge,
    "source size": _source,
    "focal spread": _focal,
    "probe": _probe,
}
