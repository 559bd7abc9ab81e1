"""Where the misfit lies, on the detector and in the field, in words."""

from __future__ import annotations

import numpy as np

from .result import Pictures
from .tally import Tally

_CLEAR = 1.5  # times as much as elsewhere


def where_it_is(shown: Pictures, seen: Tally) -> str:
    """One or two sentences."""
    said = [_on_detector(shown), _in_field(shown)]
    return " ".join(s for s in said if s)


def _on_detector(p: Pictures) -> str:
    if p.aperture is None or not len(p.angles):
        return ""
    width = max(p.pixel_mrad)
    edge = np.abs(p.angles - p.aperture) <= 1.01 * width
    inside = (p.angles < p.aperture) & ~edge
    outside = (p.angles > p.aperture) & ~edge
    parts = {
        "inside the bright disk": inside,
        "at the edge of the bright disk": edge,
        "beyond the bright disk": outside,
    }
    number = 2 * np.pi * np.maximum(p.angles / width, 0.25)  # pixels in a ring
    excess = {
        name: float(np.average(np.maximum(p.radial_chi2[m] - 1, 0), weights=number[m]))
        for name, m in parts.items()
        if m.any()
    }
    order = sorted(excess, key=lambda n: -excess[n])
    if not order or excess[order[0]] < 0.1:
        return ""
    if len(order) > 1 and excess[order[0]] < _CLEAR * excess[order[1]]:
        return "On the detector it is spread over bright disk and dark field alike."
    sign = p.radial_residual[parts[order[0]]]
    more = "too few" if float(np.average(sign, weights=number[parts[order[0]]])) > 0 else "too many"
    return f"On the detector it is strongest {order[0]}, where the model has {more} electrons."


def _in_field(p: Pictures) -> str:
    chi2, count = p.position_chi2 - 1, len(p.position_chi2)
    if count < 16 or chi2.sum() <= 0.05 * count:
        return ""
    worst = np.sort(chi2)[::-1]
    top = float(worst[: max(1, count // 10)].sum() / np.maximum(chi2, 0).sum())
    if top > 0.5:
        at = p.positions[np.argmax(chi2)]
        return (
            f"A tenth of the positions has {100 * top:.0f} % of it, around (y, x) ({at[0]:.3g}, "
            f"{at[1]:.3g}) Å: look there for contamination, a jump of the scan, or the end of the "
            "specimen."
        )
    low, high = p.positions.min(axis=0), p.positions.max(axis=0)
    rim = (np.minimum(p.positions - low, high - p.positions) < 0.15 * (high - low)).any(axis=1)
    if 4 < rim.sum() < count - 4 and chi2[rim].mean() > 1.8 * max(chi2[~rim].mean(), 0.02):
        return "It is larger at the rim of the field than in its middle."
    return ""
