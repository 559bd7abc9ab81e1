"""What a refined probe means, in the words of a microscope."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...physics.illumination import Illumination
from ...physics.optics import Optics
from ...physics.probe_fit import fit_optics
from .probe_block import ABERRATIONS

_ANGLES = ("semi_angle", "soft_edge")


@dataclass(frozen=True)
class Reading:
    """Optics and source that a probe shows.

    Attributes
    ----------
    optics : Optics or None
        None where the probe has no aperture to read in.
    source_size : float or None
        rms for each axis, Å; None of one mode, which is coherent.
    errors : dict
        One standard deviation of each that was read.
    """

    optics: Optics | None = None
    source_size: float | None = None
    errors: dict[str, float] = field(default_factory=dict)

    def at_entrance(self, depth: float) -> Reading:
        """With the defocus of a probe that stands `depth` Å higher."""
        if self.optics is None:
            return self
        focus = self.optics.overfocus - depth
        return replace(self, optics=self.optics.model_copy(update={"overfocus": focus}))

    def beside(self, other: Illumination | None, slice_thickness: float) -> Reading:
        """With errors that also hold what the data leave open.

        Probe and volume can make up for each other: what the aberrations were while only they were
        free, and what the pixels show at the end, explain the data nearly alike. How far the two
        are apart counts as one standard deviation. Where within its first slice a specimen begins
        is not seen either, and moves the defocus.

        Parameters
        ----------
        other : Illumination or None
            As its parameters were found alone, at the same plane.
        slice_thickness : float
            Å.
        """
        errors = dict(self.errors)
        if self.optics is not None and other is not None:
            ours = {**self.optics.cartesian, "source_size": self.source_size or 0.0}
            for name in errors:
                if name in ours:
                    errors[name] = math.hypot(errors[name], ours[name] - other.value(name))
        if "C10" in errors:
            errors["C10"] = math.hypot(errors["C10"], slice_thickness / math.sqrt(12))
        return replace(self, errors=errors)


def read_probe(probe: Tensor, near: Optics, pixel_size: tuple[float, float]) -> Reading:
    """Defocus, astigmatism, coma, threefold, aperture and source of a probe given by its modes.

    Parameters
    ----------
    probe : Tensor
        (M, Ky, Kx), complex, centred.
    near : Optics
        To begin with; the third order and above are taken as they are there.
    pixel_size : (dy, dx)
        Å.
    """
    coherent = len(probe) == 1
    names = [*ABERRATIONS, *_ANGLES, *([] if coherent else ["source_size"])]
    try:
        fit = fit_optics(probe, near, pixel_size, names)
    except (ValueError, RuntimeError):  # a window with too few pixels in the aperture
        return Reading()
    return Reading(fit.optics, None if coherent else fit.source_size, fit.uncertainties)
