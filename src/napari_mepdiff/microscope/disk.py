"""The bright disk in the average pattern: centre, radius and edge, finer than a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import erfc

from ..measurement.calibration import Calibration
from ..measurement.dataset import DataError
from ..measurement.detectors import find_disk, radius_map
from ..physics.optics import wavelength


@dataclass(frozen=True)
class BrightDisk:
    """Bright disk, in detector pixels; an error is one standard deviation.

    Attributes
    ----------
    centre : (y, x)
    radius : float
        Where the brightness is half of that inside.
    edge : float
        Width of the rim, rms of the Gaussian that blurs it.
    centre_error, radius_error : float
    """

    centre: tuple[float, float]
    centre_error: float
    radius: float
    radius_error: float
    edge: float

    def semi_angle(self, calibration: Calibration) -> float | None:
        """mrad, from the calibrated detector; None where that is not known."""
        pixel = calibration.pixel_mrad
        return None if pixel is None else self.radius * pixel

    def pixel_size(self, calibration: Calibration) -> float | None:
        """Detector pixel in Å⁻¹, from semi-angle and energy; None where these are not known."""
        if calibration.semi_angle is None or calibration.energy is None:
            return None
        return calibration.semi_angle * 1e-3 / wavelength(calibration.energy) / self.radius


def fit_disk(pattern: NDArray[np.float64]) -> BrightDisk:
    """Fit a disk with a soft rim to the average pattern.

    Parameters
    ----------
    pattern : ndarray
        (Ky, Kx), e.g. PACBED.

    Raises
    ------
    DataError
        If there is no disk that ends on the detector.
    """
    start = find_disk(pattern)
    shape = (int(pattern.shape[0]), int(pattern.shape[1]))
    near = radius_map(shape, start.centre) < 1.5 * start.radius + 2
    y, x = np.nonzero(near)
    inside = radius_map(shape, start.centre) < 0.8 * start.radius
    level = float(np.median(pattern[inside])) if inside.any() else float(pattern.max())
    if start.radius < 1.5 or not level > 0 or near.all():
        raise DataError(
            "no bright disk: the average pattern has no disk of even brightness that ends on the "
            "detector; are these diffraction patterns, and is the order of the axes right?"
        )
    values = pattern[near] / level

    def rest(p: NDArray[np.float64]) -> NDArray[np.float64]:
        beyond = (np.hypot(y - p[0], x - p[1]) - p[2]) / (np.sqrt(2) * np.hypot(p[3], 0.35))
        model: NDArray[np.float64] = p[5] + 0.5 * p[4] * erfc(beyond) - values
        return model

    first = np.array([*start.centre, start.radius, 0.7, 1.0, 0.0])
    found = least_squares(rest, first, loss="soft_l1", f_scale=0.1, x_scale=[1, 1, 1, 0.5, 1, 0.1])
    cy, cx, radius, edge, height, floor = found.x
    explained = 1 - np.var(rest(found.x)) / max(float(np.var(values)), 1e-12)
    if explained < 0.6 or height < 2 * abs(floor) or not 1 < radius < 0.75 * max(shape):
        raise DataError(
            "no bright disk: the average pattern does not fall off at a rim as the image of the "
            "aperture does; is the centre of the patterns on the detector?"
        )
    # neighbouring pixels err together (the specimen's bright and dark patches): nine count as one
    information = found.jac.T @ found.jac + 1e-12 * np.eye(6)
    errors = 3 * np.sqrt(np.diag(np.linalg.inv(information)) * np.var(rest(found.x)))
    return BrightDisk(
        (float(cy), float(cx)),
        float(max(np.hypot(errors[0], errors[1]), 0.02)),
        float(radius),
        float(max(errors[2], 0.15)),  # what a sharp rim on square pixels leaves
        float(abs(edge)),
    )
