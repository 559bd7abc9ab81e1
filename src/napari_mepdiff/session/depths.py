"""Depths: the slices that the steps of a plan see a specimen in."""

from __future__ import annotations

from ..measurement.dataset import Calibration
from ..reconstruction.assumptions import slicing
from ..reconstruction.registry import SOLVERS
from .automatic import TOGETHER, Depth, depth_for_prior
from .choices import Setup


def depth_of(calibration: Calibration, setup: Setup) -> tuple[Depth, tuple[str, ...]]:
    """Slices of the last step: as chosen, as the told thickness asks, or 8 of 1.6 Å.

    Returns
    -------
    Depth, notes
        A note where the thickness is supposed.
    """
    if setup.slices is None and setup.slice_thickness is None:
        depth = depth_for_prior(calibration)
    else:
        each = slicing(calibration, setup.slices, setup.slice_thickness)
        thick = sum(each) > 2 * TOGETHER
        depth = Depth(len(each), each[0], max(1, round(TOGETHER / each[0])) if thick else 1)
    if setup.together > 1:
        depth = Depth(depth.slices, depth.slice_thickness, setup.together)
    if calibration.thickness is not None or setup.slices is not None:
        return depth, ()
    note = (
        f"the thickness is not told: {depth.slices} slices of {depth.slice_thickness:g} Å are "
        "supposed"
    )
    return depth, (note,)


def depth_for_refine(thin: Depth) -> Depth:
    """Slices of about 10 Å for the same specimen; those of the prior where it is thin."""
    whole = thin.slices * thin.slice_thickness
    count = SOLVERS["refine"].slices(Calibration(thickness=whole), None, None) or thin.slices
    return Depth(count, whole / count)
