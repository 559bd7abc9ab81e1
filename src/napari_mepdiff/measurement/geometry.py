"""The microscope's numbers against the patterns and against each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..physics.optics import probe_from_parameters, wavelength
from .dataset import FourDSTEM
from .detectors import Disk
from .findings import Finding, error, warning


def known(data: FourDSTEM) -> Iterator[Finding]:
    """What the calibration lacks."""
    c = data.calibration
    for value, code, what in (
        (c.pixel_size, "no-pixel-size", "detector pixel size (Å⁻¹ or mrad)"),
        (c.energy, "no-energy", "beam energy (kV)"),
        (c.semi_angle, "no-semi-angle", "convergence semi-angle (mrad)"),
        (c.scan_step if data.positions is None else True, "no-scan-step", "scan step (Å)"),
    ):
        if value is None:
            yield error(code, f"the {what} is not known: set it before a reconstruction")
    if c.energy is not None and not 10 <= c.energy <= 1500:
        yield warning(
            "energy-unit", f"a beam energy of {c.energy:g} kV is unusual: is it in V or MV?"
        )
    if data.optics is None and data.probe is None and c.semi_angle is not None:
        yield warning(
            "no-defocus",
            "the defocus is not known and taken as 0 Å, with no other aberration: set the "
            "overfocus (0 if the beam was in focus)",
        )


def disk_size(data: FourDSTEM, disk: Disk) -> Iterator[Finding]:
    """The bright disk against detector and calibration."""
    c, (ky, kx) = data.calibration, data.detector_shape
    off = np.hypot(disk.centre[0] - ky // 2, disk.centre[1] - kx // 2)
    if off > max(1.5, 0.1 * disk.radius):
        yield warning(
            "off-centre",
            f"the bright disk is centred on ({disk.centre[0]:.1f}, {disk.centre[1]:.1f}), "
            f"{off:.1f} px from the middle: centre the patterns",
        )
    if disk.radius >= 0.5 * min(ky, kx) - 1:
        yield error(
            "disk-cut", "the bright disk fills the detector: the pattern is smaller than the disk"
        )
    expected = c.disk_radius
    if expected is None:
        return
    assert c.pixel_mrad is not None
    assert c.semi_angle is not None
    assert c.pixel_size is not None
    if 2 * expected > min(ky, kx):
        yield error(
            "pattern-smaller-than-disk",
            f"by the calibration the bright disk is {2 * expected:.0f} px wide, the pattern only "
            f"{min(ky, kx)} px: check pixel size, semi-angle and energy (Å⁻¹ or mrad? mrad or "
            "rad?)",
        )
    elif abs(disk.radius - expected) > max(0.75, 0.025 * expected):
        fitting = _energy(c.semi_angle * 1e-3 / (disk.radius * c.pixel_size))
        volts = f", or an energy of {fitting:.0f} kV" if fitting else ""
        yield warning(
            "disk-size",
            f"the bright disk has a radius of {disk.radius:.1f} px, by the calibration it should "
            f"be {expected:.1f} px: check pixel size, semi-angle and energy (it fits a pixel of "
            f"{c.semi_angle / disk.radius:.4g} mrad, a semi-angle of "
            f"{disk.radius * c.pixel_mrad:.3g} mrad{volts})",
        )


def _energy(wanted: float) -> float | None:
    """Beam energy in kV of a wavelength in Å, if an electron microscope has it."""
    energies = np.geomspace(20, 1500, 800)
    lengths = np.array([wavelength(float(e)) for e in energies])
    if not lengths[-1] <= wanted <= lengths[0]:
        return None
    return float(np.interp(-wanted, -lengths, energies))


def places(data: FourDSTEM) -> Iterator[Finding]:
    """Scan step and positions against the probe and each other."""
    c = data.calibration
    step, what = (None if c.scan_step is None else max(c.scan_step)), "the scan step"
    smallest = None if c.scan_step is None else min(c.scan_step)
    if data.positions is not None:
        apart = neighbour_distance(data.positions)
        same = apart <= 1e-6
        if same.mean() > 0.1:
            yield error(
                "positions-equal",
                f"{int(same.sum())} of {len(same)} positions that the file holds are the same as "
                "another one: were they rounded, or never filled?",
            )
            return
        typical = float(np.median(apart))
        # a raster's nearest neighbour is one of its smaller steps away
        if smallest is not None and not smallest / 1.5 < typical < smallest * 1.5:
            yield warning(
                "positions-step",
                f"the positions that the file holds lie {typical:.3g} Å apart, the scan step is "
                f"{smallest:g} Å: one of them is in another unit; the positions are used",
            )
        ratio = 1.0 if c.scan_step is None else max(c.scan_step) / min(c.scan_step)
        step, smallest = typical * ratio, typical
        what = "the distance of neighbouring positions"
    if step is None or smallest is None:
        return
    expected, side = c.disk_radius, min(data.detector_shape)
    if c.pixel_size is not None:
        if expected is not None and 2 * expected <= side and data.optics is not None:
            size = probe_size(data)
            if step > size:
                yield error(
                    "step-larger-than-probe",
                    f"{what} ({step:.3g} Å) is larger than the probe ({size:.1f} Å): "
                    "neighbouring positions do not overlap; is it in nm or pm?",
                )
            elif step > 0.7 * size:
                yield warning(
                    "little-overlap",
                    f"{what} ({step:.3g} Å) is {step / size:.0%} of the width of the probe "
                    f"({size:.1f} Å): neighbouring positions hardly overlap, which leaves "
                    "ptychography little to go by",
                )
        elif step > 0.5 / c.pixel_size:
            yield error(
                "step-larger-than-window",
                f"{what} ({step:.3g} Å) is larger than half of the window "
                f"({1 / c.pixel_size:.1f} Å): check its unit",
            )
    if smallest < 0.005:
        yield warning("step-unit", f"{what}, {smallest:.3g} Å, is very small: is it in nm?")


def neighbour_distance(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each position (N, 2) to the nearest other one, Å."""
    if len(positions) < 2:
        return np.full(len(positions), np.inf)
    apart: NDArray[np.float64] = cKDTree(positions).query(positions, k=2)[0][:, 1]
    return apart


def probe_size(data: FourDSTEM) -> float:
    """Diameter in Å that holds 90 % of the probe's intensity (from the optics)."""
    import torch

    pixel = data.real_pixel
    probe = probe_from_parameters(
        data.illumination(), data.detector_shape, pixel, dtype=torch.complex128
    )[0]
    intensity = probe.abs().square().numpy()
    y, x = np.indices(intensity.shape)
    r = np.hypot(
        (y - intensity.shape[0] // 2) * pixel[0], (x - intensity.shape[1] // 2) * pixel[1]
    ).ravel()
    order = np.argsort(r)
    inside = np.cumsum(intensity.ravel()[order])
    return 2 * float(r[order][np.searchsorted(inside, 0.9 * inside[-1])])
