"""What a refined probe means, in the words of a microscope."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

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
