"""Where the beam stood against where it was told to: arrows, and how far they go."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONG = 1.0  # of the distance between neighbours: longer ones would run into each other
LARGE = 95  # per cent of the arrows are no longer than that

_ROUND = (8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0)


@dataclass(frozen=True)
class Moves:
    """Arrows from the told to the refined positions.

    Attributes
    ----------
    vectors : ndarray
        (N, 2, 2): where each begins (y, x), Å, and how far it goes, exaggerated, Å.
    exaggeration : float
        How many times longer than the true moves they are drawn.
    rms, largest : float
        Of the true moves, Å.
    spacing : float
        Between neighbours of the scan, Å.
    """

    vectors: NDArray[np.float64]
    exaggeration: float
    rms: float
    largest: float
    spacing: float


def moves(told: NDArray[np.float64], refined: NDArray[np.float64]) -> Moves:
    """Arrows from told to refined positions.

    Parameters
    ----------
    told, refined : ndarray
        (N, 2), Å, (y, x), in the same frame.

    Raises
    ------
    ValueError
        If they are not of one scan.
    """
    if told.shape != refined.shape or told.ndim != 2:
        raise ValueError(
            f"the refined positions are {len(refined)}, the scan has {len(told)}: they are of "
            "another measurement"
        )
    shift = refined - told
    length = np.hypot(*shift.T)
    factor, spacing = 1.0, _neighbours(told)
    large = float(np.percentile(length, LARGE))
    if large > 0:
        factor = _round(LONG * spacing / large)
    vectors = np.stack([told, factor * shift], axis=1)
    rms = float(np.sqrt((length**2).mean()))
    return Moves(vectors, factor, rms, float(length.max()), spacing)


def _neighbours(places: NDArray[np.float64]) -> float:
    """Å between neighbours of a scan, by its area; 1 where it has none."""
    size = np.ptp(places, axis=0)
    return float(np.sqrt(size.prod() / max(1, len(places)))) or 1.0


def _round(factor: float) -> float:
    """A round number that is not above the factor; 1 where that is below 1."""
    if factor < 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(factor))
    return next(n * power for n in _ROUND if n * power <= factor * (1 + 1e-9))
