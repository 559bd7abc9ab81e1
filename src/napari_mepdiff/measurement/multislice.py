"""Patterns of a potential by abTEM (Madsen and Susi 2021), one batch of positions after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.extras import require
from ..physics.conversions import tilt_to_abtem, to_abtem
from ..physics.optics import Optics

BATCH = 64
"""Positions at a time."""


def patterns_of(
    potential: Any,
    positions: NDArray[np.float64],
    optics: Optics,
    *,
    side: int,
    pixel: float,
    detector: int,
    soft: bool = False,
    tilt: tuple[float, float] = (0.0, 0.0),
    advance: Callable[[], None] | None = None,
) -> NDArray[np.float64]:
    """Noise-free patterns of a square box, as fractions of the incident beam.

    Parameters
    ----------
    potential : abtem.PotentialArray
        ``side`` × ``side`` pixels.
    positions : ndarray
        (N, 2), Å, (y, x), from the corner of the box.
    optics : Optics
        C10 and C30 go to abTEM under their names, as do the astigmatisms and comas.
    side : int
        Pixels of the box, a multiple of `detector`: the finer patterns are sampled at the
        detector's pixels, which is what a detector does.
    pixel : float
        Å.
    detector : int
        Pixels per side; the window is detector × pixel.
    soft : bool
        abTEM's soft aperture: amplitude that falls off linearly within one angular pixel of the
        box.
    tilt : (y, x)
        mrad, of the beam in abTEM's propagator (``Probe(tilt=…)``): for small angles the same as
        to tilt the crystal, which then leans by −tilt: an atom at depth z appears at −z · tilt,
        while the bright disk stays in the middle.
    advance : callable, optional
        Called after each batch; what it raises ends the work.

    Returns
    -------
    ndarray
        float64 (N, detector, detector), DC at detector // 2.
    """
    abtem = require("abtem", "simulate", "Simulating recordings")
    stride = side // detector
    more: dict[str, Any] = {"tilt": tilt_to_abtem(tilt)} if any(tilt) else {}
    probe = abtem.Probe(
        energy=optics.energy * 1e3,
        semiangle_cutoff=optics.semi_angle,
        soft=soft,
        aberrations=to_abtem(optics),
        gpts=(side, side),
        extent=(side * pixel, side * pixel),
        **more,
    )
    xy = positions[:, ::-1]
    middle = (side // 2 - stride * (detector // 2), stride)
    out = np.empty((len(positions), detector, detector))
    with abtem.config.set({"diagnostics.progress_bar": False, "precision": "float32"}):
        for start in range(0, len(xy), BATCH):
            scan = abtem.CustomScan(xy[start : start + BATCH])
            waves: Any = probe.multislice(potential, scan=scan, lazy=False)
            patterns = waves.diffraction_patterns(
                max_angle=None, parity="same", fftshift=True
            ).array
            patterns = np.asarray(patterns, dtype=np.float64).transpose(0, 2, 1)
            out[start : start + BATCH] = patterns[
                :, middle[0] :: middle[1], middle[0] :: middle[1]
            ][:, :detector, :detector]
            if advance is not None:
                advance()
        free = probe.build(abtem.CustomScan(np.array([[side * pixel / 2] * 2])), lazy=False)
        vacuum = np.asarray(
            free.diffraction_patterns(max_angle=None, parity="same").array, dtype=np.float64
        )
    out *= stride**2 / vacuum.sum()
    return out


def box_of(shape: tuple[int, int], detector: int) -> tuple[int, tuple[int, int]]:
    """Smallest square box around an extended canvas, a whole multiple of the detector.

    Returns
    -------
    side : int
        Pixels.
    offset : (y, x)
        Pixels from the corner of the box to that of the canvas.
    """
    side = int(np.ceil((max(shape) + 16) / detector)) * detector
    return side, ((side - shape[0]) // 2, (side - shape[1]) // 2)


def potential_of(phase: NDArray[np.floating], pixel: float, dz: float, sigma: float) -> Any:
    """abTEM's potential from a phase volume (D, side, side) in rad."""
    abtem = require("abtem", "simulate", "Simulating recordings")
    extent = phase.shape[-1] * pixel
    return abtem.PotentialArray(
        np.ascontiguousarray((phase / sigma).transpose(0, 2, 1)),
        slice_thickness=dz,
        extent=(extent, extent),
    )
