"""All that is shown of a microscope at a time: made at once, in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..microscope.modes import ModePictures, mode_pictures
from ..microscope.moves import Moves, moves
from ..microscope.phase import PhaseCurve, phase_curve
from .microscope_table import Block, Row, free_blocks, microscope_table

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..microscope.estimate import Estimate
    from ..reconstruction.ordinary.refine_settings import RefineSettings
    from .microscopes import Found


@dataclass(frozen=True)
class Look:
    """A microscope as it is shown.

    Attributes
    ----------
    found : Found or None
        What is refined.
    rows : tuple of Row
    free : dict
        Which blocks the next run of `refine` may move.
    mode : ModePictures or None
    told, refined : PhaseCurve or None
        Aberration phase.
    moves : Moves or None
        From the told to the refined positions.
    """

    found: Found | None
    rows: tuple[Row, ...]
    free: dict[Block, bool]
    mode: ModePictures | None = None
    told: PhaseCurve | None = None
    refined: PhaseCurve | None = None
    moves: Moves | None = None


def look(
    data: FourDSTEM | None,
    estimated: Estimate | None,
    found: Found | None,
    settings: RefineSettings,
    mode: int = 0,
) -> Look:
    """Table, pictures, curves and arrows.

    Parameters
    ----------
    data : FourDSTEM or None
        What is told, and its scan.
    mode : int
        Which mode of the probe; the first is 0.
    """
    state = None if found is None else found.state
    rows, free = microscope_table(data, estimated, state, settings), free_blocks(settings)
    told = None if data is None or data.optics is None else phase_curve(data.optics)
    if state is None:
        return Look(None, rows, free, told=told)
    arrows = None
    if data is not None and (data.positions is not None or data.calibration.scan_step):
        places = data.scan_positions()
        if places.shape == state.positions.shape:
            arrows = moves(places, state.positions)
    lens = None if state.optics is None else phase_curve(state.optics)
    return Look(found, rows, free, mode_pictures(state, mode), told, lens, arrows)
