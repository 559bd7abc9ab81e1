"""FourDSTEM: patterns that stay on disk until they are needed, and what belongs to them.

The patterns are a dask array (scan y, scan x, detector y, detector x), in blocks of whole patterns.
Every change (crop, bin, flip, repair …) returns a new, still lazy dataset; nothing is read before a
result is asked for, and what was read is kept (see :mod:`.reading`).
"""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import chunks
from .calibration import Calibration, DataError
from .measured import MEMORY_BUDGET, Measured
from .operations import counts, detector, scan

__all__ = ["MEMORY_BUDGET", "Calibration", "DataError", "FourDSTEM", "chunks"]


@dataclass(frozen=True)
class FourDSTEM(Measured):
    """A 4D-STEM measurement.

    Parameters
    ----------
    data : array
        (Ny, Nx, Ky, Kx); numpy, h5py, zarr, memory map or dask. DC at (Ky // 2, Kx // 2) once
        centred.
    calibration : Calibration
    optics : Optics, optional
        Full illumination settings, where known.
    positions : (N, 2) array, optional
        Å, (y, x); the regular raster of the calibration if not given.
    boundary : 'periodic' or 'extended'
        How the specimen goes on beyond the scanned field.
    canvas : (H, W), optional
        Voxels of the periodic field; the scan does not tell it.
    mask : (Ky, Kx) array, optional
        Detector pixels to use (1) or not (0).
    probe : (M, Ky, Kx) complex array, optional
        Known illumination, centred.
    truth : Volume, optional
        The specimen, where it is known (simulations).
    truth_atoms : dict, optional
        ``numbers`` (n,), ``positions`` (n, 3) as (z, y, x) in Å of the truth.
    truth_instrument : dict, optional
        What the instrument truly did, where it is known (simulations): ``positions`` (N, 2) in Å on
        the canvas, ``optics``, and more, see :mod:`.recording`. For evaluation only.
    band_limit : float, optional
        Band limit of the simulation that made the data.
    provenance : dict
        Where the data come from and what was done to them.
    reading : Reading, optional
        What was read of the patterns so far; made and shared by the datasets themselves.
    """

    # ---- changes, all lazy: one function each, in operations/ -----------------------------------
    calibrated = scan.calibrated
    crop_scan = scan.crop_scan
    bin_scan = scan.bin_scan
    transpose_scan = scan.transpose_scan
    crop_detector = detector.crop_detector
    bin_detector = detector.bin_detector
    flip_detector = detector.flip_detector
    transpose_detector = detector.transpose_detector
    centred = detector.centred
    subtract_background = counts.subtract_background
    to_electrons = counts.to_electrons
    repair_hot_pixels = counts.repair_hot_pixels
