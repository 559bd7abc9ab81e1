"""The eight ways in which a detector may lie against the scan, each with what speaks for it.

Turning a detector by 90° is the same as turning the scan back, so of the eight flips and
transpositions four are a rotation, and four mirror. Two measurements tell these halves apart and
give the rotation up to 180°: the curl of the mean deflection, and the sense in which images move
with the tilt. Of the pair that remains, (θ, C10) and (θ + 180°, −C10), only what is known about the
specimen tells: where it is thick, electrons are lost from the bright disk, and there its phase,
summed from the mean deflection, is high, not low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..measurement.dataset import DataError, FourDSTEM
from ..measurement.orientation import estimate_rotation, scan_axes
from .parallax import Parallax

TELLS = 0.6  # a rest of curl above this is noise

Misfit = Callable[["Orientation"], float]  # reconstructs for a moment; lower is better


@dataclass(frozen=True)
class Orientation:
    """One way to read the detector, and the rotation of the scan that goes with it.

    Attributes
    ----------
    transpose, flip_y, flip_x : bool
        As in the preparation: first the swap of axes, then the mirrors.
    rotation : float or None
        Degrees. Rotation + 180° with −C10 is the other reading of the same data.
    C10 : float or None
        Å, of the middle of the specimen, where it is known.
    curl : float or None
        Rest of curl at that rotation against the largest at any: near 0 speaks for it, near 1 tells
        nothing.
    sense : bool or None
        Whether images move with the tilt in the sense that belongs to it; None where not known.
    misfit, other_misfit : float or None
        By a short reconstruction, of this reading and of the one with the other sign.
    verdict : str
        'best', 'the same' (turned by multiples of 90°), 'mirrored' or 'unknown'.
    """

    transpose: bool
    flip_y: bool
    flip_x: bool
    rotation: float | None
    C10: float | None
    curl: float | None
    sense: bool | None
    misfit: float | None
    other_misfit: float | None
    verdict: str

    @property
    def name(self) -> str:
        """In words."""
        parts = (("transpose", self.transpose), ("flip y", self.flip_y), ("flip x", self.flip_x))
        return " + ".join(text for text, on in parts if on) or "as it is"

    @property
    def other(self) -> Orientation:
        """The reading with the other sign of the defocus."""
        return replace(
            self,
            rotation=None if self.rotation is None else _turn(self.rotation + 180),
            C10=None if self.C10 is None else -self.C10,
            misfit=self.other_misfit,
            other_misfit=self.misfit,
        )


def orientation_table(
    data: FourDSTEM,
    com: NDArray[np.float64] | None = None,
    shifts: Parallax | None = None,
    misfit: Misfit | None = None,
) -> tuple[Orientation, ...]:
    """The eight orientations, the best first, the mirrored ones last.

    Parameters
    ----------
    com : ndarray, optional
        (Ny, Nx, 2), from :func:`~napari_mepdiff.measurement.detectors.centre_of_mass`.
    shifts : Parallax, optional
        From :func:`~.parallax.parallax`.
    misfit : callable, optional
        Asked about the two readings of the best one, which nothing else may tell apart.

    Raises
    ------
    DataError
        If neither curl nor shifts are known.
    """
    if com is None and shifts is None:
        raise DataError("an orientation needs the mean deflection or the shifts of images")
    halves = [None if com is None else _rest(data, com, swap) for swap in (False, True)]
    swapped: bool | None = None
    if shifts is not None:
        swapped = shifts.transpose
    elif halves[0] is not None and halves[1] is not None:
        one, two = halves[0].least, halves[1].least
        swapped = None if 0.9 < one / max(two, 1e-9) < 1.1 or min(one, two) > TELLS else two < one
    rows = []
    for flip_y, flip_x in ((False, False), (True, True), (False, True), (True, False)):
        for transpose in (False, True):
            # a mirror of the swapped axes is the unswapped detector, turned by 90°
            swap = transpose != (flip_y != flip_x)
            turn = 180 if flip_y and flip_x else 90 if flip_x else -90 if flip_y else 0
            right = None if swapped is None else swap == swapped
            half = halves[swap]
            base, c10 = (None if half is None else half.angle), None
            if shifts is not None and right:
                base, c10 = shifts.angle, shifts.C10
            rows.append(
                Orientation(
                    transpose,
                    flip_y,
                    flip_x,
                    None if base is None else _turn(base + turn),
                    c10,
                    None if half is None else half.least,
                    None if shifts is None else right,
                    None,
                    None,
                    "unknown" if right is None else "the same" if right else "mirrored",
                )
            )
    # the least change first
    rows.sort(key=lambda o: (o.verdict == "mirrored", o.transpose + o.flip_y + o.flip_x))
    best = rows[0]
    if best.verdict == "unknown":
        return tuple(rows)
    best = replace(best, verdict="best")
    if misfit is not None:
        best = replace(best, misfit=float(misfit(best)), other_misfit=float(misfit(best.other)))
        if (best.other_misfit or 0) < (best.misfit or 0):
            turned = [o.other if o.verdict == "the same" else o for o in rows[1:]]
            return (best.other, *turned)
    return (best, *rows[1:])


@dataclass(frozen=True)
class _Half:
    angle: float | None
    least: float


def _rest(data: FourDSTEM, com: NDArray[np.float64], swap: bool) -> _Half | None:
    """Rotation and rest of curl with the detector's axes as they are, or swapped."""
    field = com[..., ::-1] if swap else com
    try:
        found = estimate_rotation(data, field)
        if found.transpose:  # its angle is not for the axes as they are now
            return _Half(None, 1.0)
    except DataError:
        return None
    return _Half(found.angle, float(found.curl.min() / max(float(found.curl.max()), 1e-300)))


def thick_side(
    data: FourDSTEM, com: NDArray[np.float64], lost: NDArray[np.float64], shifts: Parallax
) -> tuple[bool | None, float]:
    """Whether the reading's phase is high where electrons are lost: it is the right one of its
    pair.

    Parameters
    ----------
    com : ndarray
        (Ny, Nx, 2), mean deflection as recorded.
    lost : ndarray
        (Ny, Nx), electrons missing from the bright disk.

    Returns
    -------
    answer : bool or None
        None where it cannot be told.
    correlation : float
    """
    field = com[..., ::-1] if shifts.transpose else com
    t = math.radians(shifts.angle)
    c, s = math.cos(t), math.sin(t)
    own = np.stack(
        [c * field[..., 0] - s * field[..., 1], s * field[..., 0] + c * field[..., 1]], -1
    )
    phase = integrate(own - own.mean(axis=(0, 1)), np.linalg.norm(scan_axes(data), axis=0))
    if not (lost.std() > 0 and phase.std() > 0):
        return None, 0.0
    r = float(np.corrcoef(phase.ravel(), lost.ravel())[0, 1])
    # both are smooth: sixteen positions count as one
    certain = abs(r) > 0.25 and abs(r) * math.sqrt(phase.size / 16) > 3
    return (r > 0 if certain else None), r


def integrate(
    field: NDArray[np.float64], steps: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """What has this gradient (y, x), in the sense of least squares, (Ny, Nx); even at the edges."""
    gy, gx = field[..., 0], field[..., 1]
    gy = np.block([[gy, gy[:, ::-1]], [-gy[::-1], -gy[::-1, ::-1]]])
    gx = np.block([[gx, -gx[:, ::-1]], [gx[::-1], -gx[::-1, ::-1]]])
    ny, nx = gy.shape
    ky, kx = np.fft.fftfreq(ny, steps[0])[:, None], np.fft.fftfreq(nx, steps[1])[None]
    k2 = ky**2 + kx**2
    k2[0, 0] = 1
    whole = np.fft.ifft2((ky * np.fft.fft2(gy) + kx * np.fft.fft2(gx)) / (2j * np.pi * k2)).real
    out: NDArray[np.float64] = whole[: ny // 2, : nx // 2]
    return out - out.mean()


def _turn(degrees: float) -> float:
    return 180 - (180 - degrees) % 360
