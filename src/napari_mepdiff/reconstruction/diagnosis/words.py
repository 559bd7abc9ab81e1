"""Causes as a microscopist says them, with what to do about each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .changes import Changes
from .result import Cause, Remedy
from .weigh import Found

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
Values = Mapping[str, float]
"""Errors in their units: Å, mrad, detector pixels, electrons; by column."""


def refining(title: str, **settings: object) -> Remedy:
    """The solver that finds the microscope with the volume."""
    options = " ".join(f"--set {k}={str(v).lower()}" for k, v in settings.items())
    return Remedy(title, f"--solver refine {options}".strip(), "refine", dict(settings))


PROBE = refining("Refine the microscope", probe="free")
MODES = refining("Refine the modes of the probe", probe="free", modes=6)
FREE = refining("Free the positions", positions="free")
AFFINE = refining("Fit the scan", positions="affine")
TILT = refining("Refine the tilt", tilt=True)
DARK = refining("Fit a background", background=True)


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
    return Cause(found.name, words, share, remedy, found.like)


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


def _scan(v: Values, _: Changes) -> tuple[str, Remedy]:
    # y' = (1 + yy) y + yx x, x' = xy y + (1 + xx) x, in steps of Å per Å
    turn = math.degrees((v["xy"] - v["yx"]) / 2)
    scale = 100 * (v["yy"] + v["xx"]) / 2
    return (
        "The positions are wrong by one map of the whole scan: about "
        f"{-turn:+.2g}° of rotation and {scale:+.2g} % of the scan step; what is left is shear.",
        AFFINE,
    )


def _positions(_v: Values, _c: Changes) -> tuple[str, Remedy]:
    return (
        "The probe was not where the scan says, by another amount at each position (jitter, drift, "
        "distortion of the scan).",
        FREE,
    )


def _current(_v: Values, _c: Changes) -> tuple[str, None]:
    return (
        "The patterns hold other numbers of electrons than the model, different at each position: "
        "the beam current fluctuated, or something thick or dirty takes electrons away.",
        None,
    )


def _tilt(v: Values, _: Changes) -> tuple[str, Remedy]:
    size = math.hypot(v["tilt_y"], v["tilt_x"])
    return (
        f"The beam does not run along the columns of atoms: a tilt of about {size:.2g} mrad "
        f"({v['tilt_y']:+.2g} in y, {v['tilt_x']:+.2g} in x).",
        TILT,
    )


def _thickness(v: Values, changes: Changes) -> tuple[str, Remedy]:
    like = changes.model.like
    slices = like.shape[0]
    wanted = sum(like.thickness) / max(1, len(like.thickness)) / (slices / like.model.slices)
    wanted *= 1 + max(-0.5, min(0.5, v["thickness"]))
    way = "thicker" if v["thickness"] > 0 else "thinner"
    return (
        f"The slices are of the wrong thickness: {abs(100 * v['thickness']):.2g} % {way} would fit "
        "better.",
        Remedy(
            f"Set the slices to {wanted:.3g} Å",
            f"--slice-thickness {wanted:.3g}",
            setup={"slice_thickness": float(f"{wanted:.3g}")},
        ),
    )


def _background(v: Values, _: Changes) -> tuple[str, Remedy]:
    return (
        f"Every pixel has about {v['background']:.2g} electrons a pattern that are not of the "
        "specimen: a constant background.",
        DARK,
    )


def _electrons(v: Values, _: Changes) -> tuple[str, None]:
    return (
        f"The patterns hold {100 * v['electrons']:+.2g} % other electrons than the model's probe "
        "carries: look for pixels that do not count, electrons lost beyond the detector, or a dose "
        "that is not right.",
        None,
    )


def _blur(v: Values, changes: Changes) -> tuple[str, None]:
    step = changes.steps["blur"]
    size = step * math.sqrt(max(v["blur"] / step, 0))
    return (
        f"The patterns are blurred on the detector, by about {size:.2g} px rms: electrons are "
        "counted in neighbouring pixels. Bin the detector if the probe allows it.",
        None,
    )


def _centre(v: Values, _: Changes) -> tuple[str, Remedy]:
    y, x = v["centre_y"], v["centre_x"]
    whole = (round(y), round(x))
    words = (
        f"The patterns are not centred: the undeflected beam lies ({y:+.2g}, {x:+.2g}) px (y, x) "
        "off the middle."
    )
    if whole == (0, 0):
        return f"{words} That is less than a pixel, so they cannot be moved.", PROBE
    return words, Remedy(
        "Centre the patterns",
        "--centre-y … --centre-x …",
        preparation={"centre": (float(whole[0]), float(whole[1]))},
    )


def _probe(_v: Values, _c: Changes) -> tuple[str, Remedy]:
    return (
        "The probe is otherwise than told, in a way that no single aberration describes.",
        PROBE,
    )


def _unfinished(_v: Values, _c: Changes) -> tuple[str, None]:
    return (
        "The volume itself can still be made to fit better: the run ended before it was finished. "
        "Let it go on with more iterations before anything else is blamed.",
        None,
    )


_SAYING: Mapping[str, Callable[[Values, Changes], tuple[str, Remedy | None]]] = {
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
    "scan": _scan,
    "positions": _positions,
    "current": _current,
    "tilt": _tilt,
    "thickness": _thickness,
    "background": _background,
    "electrons": _electrons,
    "blur": _blur,
    "centre": _centre,
    "probe": _probe,
    "unfinished": _unfinished,
}


def said(name: str, values: Values, changes: Changes) -> tuple[str, Remedy | None]:
    """Words and remedy of a cause, from its errors in their units."""
    return _SAYING[name](values, changes)


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
