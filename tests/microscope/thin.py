"""A thin random specimen and its convergent-beam patterns, by numpy: made in a second."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
from napari_mepdiff.physics.optics import Optics, wavelength

PIXEL, K, FIELD = 0.4, 48, 96  # Å, detector pixels, voxels of the periodic specimen
ENERGY, ANGLE = 200.0, 16.0  # kV, mrad


def record(
    seed: int,
    optics: Optics | None = None,
    rotation: float = 0.0,
    scan: tuple[int, int] = (20, 20),
    dose: float | None = 1e4,
    strength: float = 0.4,
) -> FourDSTEM:
    """Patterns at steps of 1 Å; the scan turned by `rotation` degrees from +x towards +y.

    The optics are not handed on: energy, semi-angle, pixel and step are all that is known.
    """
    o = optics or Optics(energy=ENERGY, semi_angle=ANGLE, overfocus=250.0, C30=0.0)
    rng = np.random.default_rng(seed)
    phase = np.zeros((FIELD, FIELD))
    np.add.at(phase, tuple(rng.integers(0, FIELD, (2, FIELD * FIELD // 30))), 1)
    phase = gaussian_filter(phase, 1.2, mode="wrap")
    thing = np.exp(1j * strength * phase / phase.max())
    lam = wavelength(ENERGY)
    k = np.fft.fftfreq(K, PIXEL)
    ky, kx = k[:, None], k[None]
    k2, phi = ky**2 + kx**2, np.arctan2(ky, kx)
    chi = np.pi * lam * k2 * (o.overfocus + o.C12 * np.cos(2 * (phi - o.phi12)))
    lens = (lam * np.sqrt(k2) <= ANGLE * 1e-3) * np.exp(-1j * chi)
    iy, ix = np.mgrid[: scan[0], : scan[1]].reshape(2, -1)
    z = (ix + 1j * iy) * np.exp(1j * np.radians(rotation))
    out = []
    for y, x in np.stack([z.imag, z.real], axis=1) / PIXEL:
        ny, nx = int(np.floor(y)), int(np.floor(x))
        off = (y - ny + K // 2) * ky + (x - nx + K // 2) * kx
        probe = np.fft.ifft2(lens * np.exp(-2j * np.pi * PIXEL * off))
        probe /= np.linalg.norm(probe)
        rows, cols = (n - K // 2 + np.arange(K) for n in (ny, nx))
        wave = np.fft.fft2(probe * thing[np.ix_(rows % FIELD, cols % FIELD)], norm="ortho")
        out.append(np.fft.fftshift(np.abs(wave) ** 2))
    clean = np.array(out).reshape(*scan, K, K)
    data = clean.astype(np.float32) if dose is None else rng.poisson(clean * dose).astype("u2")
    return FourDSTEM(
        data,
        Calibration(
            pixel_size=1 / (K * PIXEL), energy=ENERGY, semi_angle=ANGLE, scan_step=(1.0, 1.0)
        ),
    )
