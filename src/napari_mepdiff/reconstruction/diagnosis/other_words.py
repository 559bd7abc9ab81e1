"""Errors of scan, specimen and detector as a microscopist says them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .changes import Changes
from .optics_words import Saying, Values
from .remedies import AFFINE, DARK, FREE, PROBE, TILT
from .result import Remedy


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


def _unfinished(_v: Values, _c: Changes) -> tuple[str, None]:
    return (
        "The volume itself can still be made to fit better: the run ended before it was finished. "
        "Let it go on with more iterations before anything else is blamed.",
        None,
    )


SAYING: Mapping[str, Saying] = {
    "scan": _scan,
    "positions": _positions,
    "current": _current,
    "tilt": _tilt,
    "thickness": _thickness,
    "background": _background,
    "electrons": _electrons,
    "blur": _blur,
    "centre": _centre,
    "unfinished": _unfinished,
}
