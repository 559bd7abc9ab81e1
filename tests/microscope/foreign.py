"""Result files as PtyRAD 1.0.0, its coming version and py4DSTEM 0.14.18 lay them out.

Written out by hand after files that those packages made (the coming layout after what ptydy 0.5.2
reads), so that the readers are not tested against this project's own writers.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

N, PIXEL, ENERGY = 32, 0.3, 300.0
WAVELENGTH = 0.0196874889  # Å, at 300 kV
C10, C12, PHI12 = 80.0, 30.0, 0.3  # Å, Å, rad from +x (columns) towards +y (rows)
ANGLE = 20.4  # mrad


def wave(shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Probe (N, N) of the numbers above by numpy, its middle on pixel N // 2, Σ|ψ|² = 1."""
    k = np.fft.fftfreq(N, PIXEL)
    ky, kx = k[:, None], k[None]
    k2, phi = ky**2 + kx**2, np.arctan2(ky, kx)
    chi = np.pi * WAVELENGTH * k2 * (C10 + C12 * np.cos(2 * (phi - PHI12)))
    soft = np.clip((WAVELENGTH * np.sqrt(k2) * 1e3 - ANGLE) / 2 + 0.5, 0, 1)
    lens = 0.5 * (1 + np.cos(np.pi * soft)) * np.exp(-1j * chi)
    lens = lens * np.exp(-2j * np.pi * (ky * shift[0] + kx * shift[1]))
    probe = np.fft.fftshift(np.fft.ifft2(lens))
    return probe / np.linalg.norm(probe)


def modes() -> np.ndarray:
    """(2, N, N): the wave, and a weaker one at right angles to it."""
    first = wave()
    second = first * (np.arange(N) - N // 2)[None]
    second = second - np.vdot(first, second) * first
    return np.stack([first, 0.2 * second / np.linalg.norm(second)]).astype(np.complex64)


def places() -> np.ndarray:
    """(20, 2), Å, (y, x): a scan of 4 × 5 with errors."""
    y, x = np.mgrid[:4, :5].reshape(2, -1) * 0.9
    return np.stack([y, x], 1) + np.random.default_rng(1).normal(0, 0.05, (20, 2)) + (1.5, -2.0)


def ptyrad(path: Path, schema: int = 1, tilts: object = ((-2.0, 3.0),)) -> Path:
    """A PtyRAD result; tilts of the object (y, x), mrad."""
    pixels = (places() - places().min(axis=0)) / PIXEL + 5  # of a window's top left
    corner = np.round(pixels).astype(np.int32)
    shifts = (pixels - corner).astype(np.float32)
    tilts = np.array(tilts, np.float32)
    with h5py.File(path, "w") as file:
        if schema == 1:
            file["optimizable_tensors/probe"] = modes()
            file["optimizable_tensors/objp"] = np.zeros((1, 2, 60, 60), np.float32)
            file["optimizable_tensors/probe_pos_shifts"] = shifts
            file["optimizable_tensors/obj_tilts"] = tilts
            file["optimizable_tensors/slice_thickness"] = np.float32(5.0)
            file["model_attributes/crop_pos"] = corner
            file["model_attributes/dx"] = np.float32(PIXEL)
            file["model_attributes/lambd"] = np.float32(WAVELENGTH)
            file["model_attributes/scan_affine"] = "__NONE__"
            params = file.create_group("params/init_params")
            params["probe_kv"], params["probe_conv_angle"] = ENERGY, ANGLE
            params["probe_source"] = "simu"
            params["probe_aberrations/defocus"] = -70.0
            params["probe_aberrations/A1"] = 20.0
            params["probe_aberrations/A1phi"] = 10.0
            params["meas_flipT"] = np.array([1, 0, 0])
        else:
            file["ptyrad_schema"] = schema
            file["components/probe/tensors/modes"] = modes()
            file["components/object/tensors/phase"] = np.zeros((1, 2, 60, 60), np.float32)
            file["components/object/tensors/tilts"] = tilts
            file["components/positions/tensors/crop_pos"] = corner
            file["components/positions/tensors/shifts"] = shifts
            file["model_meta/dx"], file["model_meta/lambd"] = PIXEL, WAVELENGTH
            file["params/experiment/kv"], file["params/experiment/conv_angle"] = ENERGY, ANGLE
            file["params/model/probe/init/aberrations/C10"] = 70.0
    return path


def py4dstem(path: Path, transposed: bool = False) -> Path:
    """A py4DSTEM ``MixedstateMultislicePtychography``: x are the rows, y the columns."""
    pixels = (places() - places().min(axis=0)) / PIXEL + N / 2
    with h5py.File(path, "w") as file:
        root = file.create_group("multi-slice_root")
        root.attrs["emd_group_type"], root.attrs["python_class"] = "root", "Root"
        group = root.create_group("multi-slice")
        group.attrs["emd_group_type"] = "custom"
        group.attrs["python_class"] = "MixedstateMultislicePtychography"
        group["_probe_emd/data"] = np.fft.ifftshift(modes(), axes=(1, 2)) * (1e4**0.5 / N)
        meta = group.create_group("metadatabundle")
        start = meta.create_group("instantiation_metadata")
        start["energy"], start["semiangle_cutoff"], start["rolloff"] = 300e3, ANGLE + 1, 2.0
        start["theta_x"], start["theta_y"] = 2.0, -3.0
        start["vacuum_probe_intensity"] = "_None"
        done = meta.create_group("preprocess_metadata")
        done["positions_px"], done["sampling"] = pixels.astype("f4"), np.array([PIXEL, PIXEL])
        done["rotation_angle_rad"], done["data_transpose"] = 0.5, transposed
        aberrations = meta.create_group("aberrations_metadata")
        aberrations["C10"], aberrations["C12"] = C10, C12
        aberrations["phi12"], aberrations["C21"] = np.pi / 2 - PHI12, 0.0
    return path
