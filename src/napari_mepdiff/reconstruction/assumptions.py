"""What a problem takes for known where nobody said it: slices, electrons, canvas, probe, positions.

Only from what a user has: patterns and calibration, never the ground truth that a file may hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..measurement.dataset import Calibration, DataError, FourDSTEM
from ..measurement.operations.counts import repair_block
from ..measurement.reading import Summary
from ..measurement.values import empty_patterns
from ..microscope.state import MicroscopeState
from ..physics.grouping import Grouping
from ..physics.propagation import propagator
from ..physics.scan import canvas_shape

DEFAULT_SLICES, DEFAULT_THICKNESS = 8, 1.6  # those of the shipped prior


def slicing(
    calibration: Calibration,
    slices: int | None = None,
    slice_thickness: float | Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Thickness of each slice in Å, from what was asked for and what is known of the specimen.

    What is not given follows from the specimen's thickness where the calibration has it; else there
    are 8 slices of 1.6 Å.

    Raises
    ------
    DataError
        If number and thickness do not fit together.
    """
    known = calibration.thickness
    if slices is None:
        if slice_thickness is not None and not isinstance(slice_thickness, (int, float)):
            slices = len(slice_thickness)
        elif known is not None:
            slices = max(1, round(known / (slice_thickness or DEFAULT_THICKNESS)))
        else:
            slices = DEFAULT_SLICES
    if slice_thickness is None:
        slice_thickness = DEFAULT_THICKNESS if known is None else known / max(slices, 1)
    each = (
        (float(slice_thickness),) * slices
        if isinstance(slice_thickness, (int, float))
        else tuple(map(float, slice_thickness))
    )
    if slices < 1 or len(each) != slices or not min(each) > 0:
        raise DataError(
            f"{slices} slices and a thickness of {slice_thickness} Å do not fit together"
        )
    return each


def electrons_per_pattern(data: FourDSTEM, seen: Summary) -> float:
    """Electrons that reach the specimen at a position.

    The mean sum of the patterns; masked pixels count as their neighbours do, dropped frames not at
    all. Where the dose is known and agrees with that to 1 %, it is the better number, since the
    detector loses the electrons beyond its edge.
    """
    lit = ~empty_patterns(seen)
    if data.mask is None or (data.mask > 0).all():
        measured = float(seen.total[lit].mean())
    else:
        filled = repair_block(seen.pacbed[None, None], data.mask <= 0)
        measured = float(filled.sum(dtype=np.float64)) * seen.total.size / int(lit.sum())
    sent = data.calibration.electrons
    return sent if sent is not None and abs(measured / sent - 1) < 0.01 else measured


def few_patterns(data: FourDSTEM, count: int = 16) -> Summary:
    """A summary from a few patterns, where a look through all of them would take too long."""
    ny, nx = data.scan_shape
    at = np.unique(np.linspace(0, ny * nx - 1, count).astype(int))
    some = np.stack([data.pattern(*divmod(int(i), nx)) for i in at])
    return FourDSTEM(some[None]).reading.summary()


def refined_positions(microscope: MicroscopeState, data: FourDSTEM) -> NDArray[np.float64]:
    """Positions of an earlier run, if it was one on this scan."""
    count = data.shape[0] * data.shape[1]
    if len(microscope.positions) != count:
        raise DataError(
            f"the refined positions are {len(microscope.positions)}, the scan has {count}: they "
            "are of another measurement"
        )
    same = np.allclose(microscope.pixel_size, data.real_pixel, rtol=1e-3)
    if not same or microscope.probe.shape[1:] != data.detector_shape:
        raise DataError(
            f"the refined probe has {microscope.probe.shape[1]} × {microscope.probe.shape[2]} px "
            f"of {microscope.pixel_size[0]:.4g} Å, the patterns ask for {data.shape[2]} × "
            f"{data.shape[3]} of {data.real_pixel[0]:.4g} Å: crop and bin them as in that run"
        )
    return microscope.positions


def canvas_of(
    data: FourDSTEM, places: NDArray[np.float64], margin: float = 0.0
) -> tuple[tuple[int, int], NDArray[np.float64]]:
    """Voxels (H, W) that hold the windows of all places (N, 2), and these places upon them, Å.

    On an extended canvas windows may move by `margin` Å (and one pixel) each way.

    Raises
    ------
    DataError
        If the field of periodic data is not known.
    """
    if data.boundary == "periodic":
        if data.canvas is None:
            raise DataError("periodic data need to say their field in voxels (canvas)")
        return data.canvas, places
    pixel = data.real_pixel
    room = 1 + int(np.ceil(margin / min(pixel)))
    return canvas_shape(places, pixel, data.detector_shape, room)


def unit_probe(probe: Tensor | NDArray[np.complex64], window: tuple[int, int]) -> Tensor:
    """A given probe as (M, Ky, Kx) with an intensity of 1."""
    wave = torch.as_tensor(probe).to(torch.complex64)
    wave = wave if wave.ndim == 3 else wave[None]
    if tuple(wave.shape[1:]) != window:
        raise DataError(f"the probe is {tuple(wave.shape[1:])} px, the patterns are {window}")
    return wave / wave.abs().square().sum().sqrt()


def first_plane(thickness: Sequence[float], together: int) -> float:
    """Å below the entrance surface where the first phases act: in the middle of what the physics
    takes as its first slice.

    Raises
    ------
    ValueError
        If so many slices cannot be taken together.
    """
    first = Grouping.every(len(thickness), together).sizes[0]
    return sum(thickness[:first]) / 2


def propagated(
    wave: Tensor,
    pixel_size: tuple[float, float],
    distance: float,
    wavelength: float,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """A probe (M, Ky, Kx), centred, at a plane so many Å deeper."""
    if not distance:
        return wave
    shape = (int(wave.shape[1]), int(wave.shape[2]))
    h = propagator(shape, pixel_size, distance, wavelength, tilt=tilt).to(wave.device)
    return torch.fft.ifft2(torch.fft.fft2(wave.to(torch.complex128)) * h).to(wave.dtype)
