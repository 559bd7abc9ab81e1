"""What the misfit of a run says about it, in words: one judgement for docks, terminal and record.

Losses are relative to shot noise (:mod:`napari_mepdiff.physics.misfit`): 1 means that the volume
explains the data as well as counting statistics allow. That proves nothing about depth, but a
value far from 1 proves that something is wrong with model or data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HIGH = 3.0  # good runs on counted data end between 1 and 2, a wrong orientation or focus above 4
VERY_HIGH = 30.0  # no geometry is that wrong: the values themselves are
LOW = 0.5  # noise cannot be explained: there is none

_GEOMETRY = (
    "the defocus (its sign too) or another aberration of the probe",
    "the scan rotation, or detector axes that are swapped or mirrored",
    "the scan step or the positions",
    "the energy, the detector pixel size or the semi-angle",
    "the number and thickness of the slices",
    "partial coherence or a background that the model does not have",
    "a gain: patterns that are not in electrons",
)
_VALUES = (
    "saturated, dead or hot detector pixels that are not masked",
    "a gain: patterns that are not in electrons",
    "a background that was not subtracted",
    "patterns or a scan in another order than was said",
)


@dataclass(frozen=True)
class Doubt:
    """Why the result of a run should not be trusted.

    Attributes
    ----------
    loss : float
        Misfit relative to shot noise.
    message : str
        One sentence.
    causes : tuple of str
        What usually leads to it, the likeliest first.
    """

    loss: float
    message: str
    causes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.message} Likely causes: {'; '.join(self.causes)}."


def verdict(loss: float, finished: bool = True) -> Doubt | None:
    """What is doubtful about a run that reached this misfit; None where nothing is.

    Parameters
    ----------
    loss : float
        Of the last (or best) frame, relative to shot noise.
    finished : bool
        False for a preview, or a run that was stopped: it may simply need more steps.
    """
    if not math.isfinite(loss):
        return Doubt(
            loss,
            "The misfit is not a number: the run has diverged.",
            ("a step or learning rate that is too large", *_GEOMETRY[:1], *_VALUES[:2]),
        )
    if loss < LOW:
        return Doubt(
            loss,
            f"The misfit is {_times(loss)} the shot noise: counted electrons scatter more than "
            "that, so the patterns are no counts, and misfit and noise mean nothing.",
            (
                "patterns normalised to a sum or largest value of 1",
                "a simulation without noise",
                "patterns that were averaged or smoothed",
            ),
        )
    if loss <= HIGH:
        return None
    early = () if finished else ("too few steps so far",)
    if loss > VERY_HIGH:
        return Doubt(
            loss,
            f"The misfit is {_times(loss)} the shot noise: the volume does not explain the data.",
            (*early, *_VALUES, *_GEOMETRY[:2]),
        )
    return Doubt(
        loss,
        f"The misfit is {_times(loss)} the shot noise; a volume that explains the data comes to 1 "
        "or 2. Something in the model does not fit the measurement.",
        (*early, *_GEOMETRY),
    )


def _times(loss: float) -> str:
    return f"{loss:.0f} ×" if loss >= 30 else f"{loss:.2g} ×"
