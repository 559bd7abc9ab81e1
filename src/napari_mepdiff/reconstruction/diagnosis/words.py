"""Causes as a microscopist says them, with what to do about each."""

from __future__ import annotations

from collections.abc import Mapping

from . import optics_words, other_words
from .changes import Changes
from .optics_words import Saying
from .result import Cause, Remedy
from .weigh import Found

SAYING: Mapping[str, Saying] = {**optics_words.SAYING, **other_words.SAYING}
NAMES: Mapping[str, str] = {
    "gain": "the gain",
    "faulty pixels": "faulty detector pixels",
    "defocus": "the defocus",
    "astigmatism": "twofold astigmatism",
    "coma": "coma",
    "threefold": "threefold astigmatism",
    "spherical": "the spherical aberration",
    "wide aperture": "a semi-angle that is told too small",
    "narrow aperture": "a semi-angle that is told too large",
    "soft edge": "a soft edge of the aperture",
    "source size": "the size of the source",
    "focal spread": "the focal spread",
    "scan": "scan step, rotation or shear",
    "positions": "the positions",
    "current": "the beam current",
    "tilt": "a tilt",
    "thickness": "the thickness",
    "background": "a background",
    "electrons": "the electrons of a pattern",
    "blur": "the blur of the detector",
    "centre": "the centre of the patterns",
    "probe": "the probe",
    "unfinished": "a volume that is not finished",
}


def cause_of(found: Found, changes: Changes, share: float) -> Cause:
    """A cause in words.

    Parameters
    ----------
    found : Found
        As it was weighed.
    changes : Changes
        For the units of its columns, and what the model believes.
    share : float
        Of the misfit above shot noise.
    """
    values = {c: v * changes.steps.get(c, 1.0) for c, v in found.values.items()}
    words, remedy = said(found.name, values, changes)
    if found.like:
        others = " or ".join(NAMES[n] for n in found.like)
        words += f" These patterns cannot tell it from {others}."
    return Cause(found.name, words, min(1.0, share), remedy, found.like)


def said(name: str, values: Values, changes: Changes) -> tuple[str, Remedy | None]:
    """Words and remedy of a cause, from its errors in their units."""
    return SAYING[name](values, changes)


def of_unfinished(share: float, beside: bool) -> Cause:
    """A volume that would fit better by itself after more steps.

    Parameters
    ----------
    beside : bool
        Whether something else is to blame as well.
    """
    words = (
        f"A few more steps of the volume alone would take {100 * share:.0f} % of it away"
        + (", in part by hiding the above." if beside else ": the run was not finished. Let it go "
           "on with more iterations before anything else is blamed.")
    )  # fmt: skip
    return Cause("unfinished", words, share)


def of_gain(value: float, exact: bool, share: float) -> Cause:
    """One electron is not 1 in the values."""
    shown = float(f"{value:.4g}")
    how = "all values come in steps of it" if exact else "by how much neighbouring patterns scatter"
    return Cause(
        "gain",
        f"The patterns are not in electrons: one electron is {shown:g} in them ({how}), so that "
        f"every pixel seems to scatter {shown:g} times as much as counts do. Divide by it.",
        share,
        Remedy(f"Set the gain to {shown:g}", f"--gain {shown:g}", preparation={"gain": shown}),
    )


def of_pixels(places: list[tuple[int, int]], share: float) -> Cause:
    """Some detector pixels do not measure."""
    count = len(places)
    where = ", ".join(f"({y}, {x})" for y, x in places[:3]) + (", …" if count > 3 else "")
    one = count == 1
    return Cause(
        "faulty pixels",
        f"{count} detector pixel{'' if one else 's'} at (y, x) {where} read"
        f"{'s' if one else ''} what no electron left there: hot or dead.",
        share,
        Remedy(
            "Repair and mask the pixels", "--repair-pixels", preparation={"repair_pixels": True}
        ),
    )
