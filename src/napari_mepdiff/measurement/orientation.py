"""How the scan lies against the detector, from the patterns themselves.

For a thin specimen the mean deflection of the beam, the centre of mass of each pattern, is the
gradient of the projected phase (Müller et al., Nature Communications 5, 5653, 2014; Lazić et al.,
Ultramicroscopy 160, 265, 2016). A gradient has no curl, whatever the specimen; a field that is
turned against the scan, or mirrored, has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..physics.scan import Raster
from .dataset import DataError, FourDSTEM
from .detectors import centre_of_mass


@dataclass(frozen=True)
class Rotation:
    """Scan against detector.

    Attributes
    ----------
    angle : float
        Degrees, in (−90, 90]: what the calibration's rotation should be, scan axes turned from
        +x towards +y of the detector. θ + 180° has no curl either; the sign of the defocus tells
        the two apart.
    transpose : bool
        Whether the detector axes must be swapped first; `angle` then holds for swapped patterns.
    curl : ndarray
        Mean square curl at each of `angles`, after that swap.
    angles : ndarray
        Degrees.
    """

    angle: float
    transpose: bool
    curl: NDArray[np.float64]
    angles: NDArray[np.float64]


def estimate_rotation(data: FourDSTEM, com: NDArray[np.float64] | None = None) -> Rotation:
    """Rotation that makes the centre-of-mass field free of curl (it is the gradient of a phase).

    With scan axes turned by θ from +x towards +y of the detector, a position (y, x) of the scan's
    own frame lies at (s x + c y, c x − s y) in the detector's, c = cos θ, s = sin θ. The field g,
    measured along the detector's axes, turned back into the scan's frame, is
    (c g_y − s g_x, s g_y + c g_x). Its curl there is ``cos θ curl g − sin θ div g``, with curl g
    and div g taken along the axes of the scan.

    Parameters
    ----------
    data : FourDSTEM
        A raster of at least 3 × 3 positions. The rotation that the calibration has already, and
        positions that the file holds, are taken into account.
    com : ndarray, optional
        (Ny, Nx, 2) as (y, x), from :func:`centre_of_mass`, to spare its computation.

    Raises
    ------
    DataError
        If the scan is no raster, or too small to have a curl.
    """
    if min(data.scan_shape) < 3:
        raise DataError(
            f"a scan of {data.scan_shape[0]} × {data.scan_shape[1]} positions is too small to "
            "estimate its rotation: at least 3 × 3 are needed"
        )
    axes, present = scan_axes(data), data.calibration.rotation
    field = centre_of_mass(data) if com is None else com
    field = field - field.mean(axis=(0, 1))
    plain, swapped = _curl(field, axes), _curl(field[..., ::-1], axes)
    transpose = swapped.least < 0.9 * plain.least
    best = swapped if transpose else plain
    angles = np.arange(-89.0, 91.0, 1.0)
    missing = round(best.angle, 1)  # a tenth of a degree is far below what the misfit can tell
    angle = 90 - (90 - present - missing) % 180
    return Rotation(angle, transpose, best.at(angles - present), angles)


def scan_axes(data: FourDSTEM) -> NDArray[np.float64]:
    """How the probe moves from one scan index to the next, as is known so far: ∂(y, x)/∂(iy, ix).

    Returns
    -------
    ndarray
        (2, 2), Å; columns are a step along the slow and along the fast axis. Without a scan step
        a square one of 1.

    Raises
    ------
    DataError
        If the positions that the file holds lie on no raster.
    """
    known = data.positions is not None or data.calibration.scan_step is not None
    where = (
        data.scan_positions()
        if known
        else Raster(
            shape=data.scan_shape, step=(1.0, 1.0), rotation=data.calibration.rotation
        ).positions()
    )
    corners = np.indices(data.scan_shape).reshape(2, -1).T
    grid, where = corners - corners.mean(axis=0), where - where.mean(axis=0)
    axes: NDArray[np.float64] = np.linalg.lstsq(grid, where, rcond=None)[0].T
    steps = np.linalg.norm(axes, axis=0)
    off = np.linalg.norm(where - grid @ axes.T, axis=1)
    if abs(np.linalg.det(axes)) < 0.1 * steps.prod() or np.sqrt((off**2).mean()) > steps.max():
        raise DataError(
            "the positions that the file holds lie on no raster: its rotation cannot be estimated"
        )
    return axes


@dataclass(frozen=True)
class _Curl:
    """Mean square of cos θ curl − sin θ div: a wave in 2θ, so its minimum needs no search."""

    curl: float  # mean curl²
    both: float  # mean curl · div
    div: float  # mean div²

    def at(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return c * c * self.curl - 2 * c * s * self.both + s * s * self.div

    @property
    def angle(self) -> float:
        """Degrees, in (−90, 90]."""
        # m + r cos(2θ + φ) with r cos φ = (curl − div) / 2, r sin φ = both: least at 2θ + φ = π
        doubled = math.pi - math.atan2(self.both, (self.curl - self.div) / 2)
        angle = math.degrees(doubled) / 2
        return angle - 180 if angle > 90 else angle

    @property
    def least(self) -> float:
        return float(self.at(np.array([self.angle]))[0])


def _curl(field: NDArray[np.float64], axes: NDArray[np.float64]) -> _Curl:
    """Curl and divergence of a field (y, x) over a scan with these axes."""
    along = np.stack([np.gradient(field, axis=0), np.gradient(field, axis=1)])  # by scan index
    slopes = np.einsum("ak,ayxf->kyxf", np.linalg.inv(axes), along)  # ∂/∂(y, x) of (y, x)
    curl = slopes[1, ..., 0] - slopes[0, ..., 1]  # ∂x g_y − ∂y g_x
    div = slopes[0, ..., 0] + slopes[1, ..., 1]
    return _Curl(float((curl**2).mean()), float((curl * div).mean()), float((div**2).mean()))
