"""The scan against the detector; its sign is held to models that share no code with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_mepdiff.evaluation.judge import data_deviance
from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.measurement.detectors import centre_of_mass
from napari_mepdiff.measurement.orientation import estimate_rotation
from napari_mepdiff.measurement.preparation import Preparation
from napari_mepdiff.measurement.simulate import diffraction
from napari_mepdiff.physics.optics import Optics, wavelength
from napari_mepdiff.specimen.volume import Volume

from ..needs import needs

SHAPE, STEP = (16, 18), (0.8, 0.6)  # Å
PIXEL, FIELD = 0.4, 64  # Å, voxels of a periodic field
ENERGY, ANGLE = 200.0, 12.0  # kV, mrad


def turned_scan(degrees: float) -> np.ndarray:
    """Positions (N, 2) as (y, x): the fast axis, along +x, turned by `degrees` towards +y."""
    iy, ix = np.mgrid[: SHAPE[0], : SHAPE[1]]
    z = (ix - (SHAPE[1] - 1) / 2) * STEP[1] + 1j * (iy - (SHAPE[0] - 1) / 2) * STEP[0]
    z = z * np.exp(1j * np.radians(degrees))
    return np.stack([z.imag.ravel(), z.real.ravel()], axis=1)


ONE_K = np.fft.fftshift(np.fft.fftfreq(FIELD, PIXEL))  # Å⁻¹
LIT = (np.hypot(ONE_K[:, None], ONE_K) * wavelength(ENERGY) * 1e3 < 1.2 * ANGLE).astype(np.float32)

MIDDLE = (np.array(SHAPE) - 1) / 2 * np.array(STEP)  # of the scan, Å


@pytest.fixture(scope="module")
def specimen() -> np.ndarray:
    """A smooth weak phase without symmetry, rad; periodic."""
    rng = np.random.default_rng(3)
    phase = gaussian_filter(rng.normal(size=(FIELD, FIELD)), 2.5, mode="wrap")
    return (0.25 * phase / np.abs(phase).max()).astype(np.float32)


def patterns(phase: np.ndarray, degrees: float, dose: float | None = 4e5) -> np.ndarray:
    """Convergent-beam patterns of a thin specimen, by numpy alone: multiply, transform."""
    lam = wavelength(ENERGY)
    k = np.fft.fftfreq(FIELD, PIXEL)
    radius = np.hypot(k[:, None], k[None])
    lens = (radius * lam * 1e3 <= ANGLE) * np.exp(-1j * np.pi * lam * 60.0 * radius**2)
    out = []
    for y, x in turned_scan(degrees) + MIDDLE:
        shift = np.exp(-2j * np.pi * (k[:, None] * y + k[None] * x))
        probe = np.fft.ifft2(lens * shift)
        probe /= np.sqrt((np.abs(probe) ** 2).sum())
        wave = np.fft.fft2(probe * np.exp(1j * phase), norm="ortho")
        out.append(np.fft.fftshift(np.abs(wave) ** 2))
    clean = np.array(out).reshape(*SHAPE, FIELD, FIELD)
    return clean if dose is None else np.random.default_rng(0).poisson(clean * dose).astype("u2")


def measured(counts: np.ndarray, **fields: object) -> FourDSTEM:
    return FourDSTEM(
        counts,
        Calibration(
            pixel_size=1 / (FIELD * PIXEL), energy=ENERGY, semi_angle=ANGLE, scan_step=STEP
        ).model_copy(update=fields),
        optics=Optics(energy=ENERGY, semi_angle=ANGLE, overfocus=60.0, C30=0.0),
        boundary="periodic",
        canvas=(FIELD, FIELD),
        mask=LIT,
    )


def apart(a: float, b: float) -> float:
    """Degrees between two angles that mean the same half a turn further."""
    return abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize("angle", [-77.0, -45.0, -20.0, 20.0, 58.0, 70.0, 110.0, 200.0])
def test_the_rotation_of_a_scan_has_its_sign(specimen, angle):
    """A rotation of the wrong sign turns every reconstruction into noise; ±θ must not both pass."""
    found = estimate_rotation(measured(patterns(specimen, angle)))
    assert not found.transpose
    assert apart(found.angle, angle) < 1.0
    assert apart(-found.angle, angle) > 1.0 or apart(2 * angle, 0) < 2


@pytest.mark.parametrize("angle", [-35.0, 20.0])
def test_the_truth_fits_the_data_with_the_estimate_and_not_with_its_opposite(specimen, angle):
    """The deciding check: misfit of the known specimen with positions turned by the estimate."""
    data = measured(patterns(specimen, angle))
    truth = Volume(specimen[None], (1.0, PIXEL, PIXEL), energy=ENERGY)
    found = estimate_rotation(data).angle
    assert data_deviance(truth, data.calibrated(rotation=found)) == pytest.approx(1, abs=0.05)
    assert data_deviance(truth, data.calibrated(rotation=-found)) > 2
    # the same through what the docks and the command line hand over
    assert Preparation(rotation=found).apply(data).calibration.rotation == found
    assert data_deviance(truth, Preparation(rotation=found).apply(data)) < 1.05


@needs("abtem")
def test_abtem_agrees_about_the_sign(specimen):
    """Patterns of another group's multislice code, at positions turned by hand."""
    truth = Volume(specimen[None], (1.0, PIXEL, PIXEL), energy=ENERGY)
    optics = Optics(energy=ENERGY, semi_angle=ANGLE, overfocus=60.0, C30=0.0)
    clean = diffraction(truth, turned_scan(25.0) + MIDDLE, optics, FIELD)
    data = measured(clean.reshape(*SHAPE, FIELD, FIELD).astype(np.float32))
    assert apart(estimate_rotation(data).angle, 25.0) < 1.0


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [-30.0, 25.0, 65.0])
def test_a_transposed_detector_is_put_right_by_what_use_takes_over(specimen, angle, flip):
    """Axes swapped by the reader, patterns mirrored in the dock, then *Estimate* and *Use*."""
    recorded = patterns(specimen, angle)
    truth = Volume(specimen[None], (1.0, PIXEL, PIXEL), energy=ENERGY)
    data = measured(recorded).transpose_detector()
    before = Preparation(flip_y=flip)
    found = estimate_rotation(before.apply(data))
    assert found.transpose is not flip or apart(found.angle, angle) < 1
    after = before.oriented(found)
    misfits = {
        turn: data_deviance(
            truth, after.model_copy(update={"rotation": found.angle + turn}).apply(data)
        )
        for turn in (0.0, 180.0)
    }
    if not flip:
        assert after.transpose
        assert misfits[0.0] == pytest.approx(1, abs=0.05)
        wrong = after.model_copy(update={"rotation": -found.angle})
        assert data_deviance(truth, wrong.apply(data)) > 2
    else:  # mirrored and transposed is turned by 90°: no swap is needed, and the sense is right
        assert not after.transpose
        assert apart(found.angle, angle + 90) < 1 or apart(found.angle, angle - 90) < 1


def test_mirrors_change_their_axes_when_the_swap_comes_before_them():
    """transpose ∘ flip y = flip x ∘ transpose: *Use* must not turn the patterns by 180° besides."""
    rng = np.random.default_rng(0)
    data = FourDSTEM(rng.poisson(5, (3, 3, 16, 16)).astype("u2"))
    before = Preparation(flip_y=True, centre_y=7, centre_x=9)
    found = estimate_rotation(FourDSTEM(np.ones((3, 3, 4, 4))), rng.normal(size=(3, 3, 2)))
    after = before.oriented(replace(found, transpose=True))
    np.testing.assert_array_equal(
        np.asarray(after.apply(data).data), np.asarray(before.apply(data).transpose_detector().data)
    )


def test_steps_positions_and_an_earlier_rotation_count(specimen):
    """The angle is the scan's own: it does not depend on what was believed before."""
    counts = patterns(specimen, 40.0)
    com = centre_of_mass(measured(counts))
    plain = estimate_rotation(measured(counts), com).angle
    assert apart(plain, 40) < 1
    half_done = measured(counts, rotation=25.0)
    assert estimate_rotation(half_done, com).angle == pytest.approx(plain, abs=0.15)
    # positions that the file holds already lie where they were measured: nothing is missing
    stored = replace(measured(counts, rotation=40.0), positions=turned_scan(40.0))
    assert estimate_rotation(stored, com).angle == pytest.approx(plain, abs=0.15)
    # if the file calls that rotation zero, so does the estimate
    stored = replace(measured(counts), positions=turned_scan(40.0))
    assert abs(estimate_rotation(stored, com).angle) < 1


def test_what_has_no_rotation_is_refused():
    with pytest.raises(DataError, match="at least 3 × 3"):
        estimate_rotation(FourDSTEM(np.ones((1, 400, 8, 8), np.float32)))
    scattered = np.random.default_rng(0).random((36, 2)) * 20
    with pytest.raises(DataError, match="no raster"):
        estimate_rotation(FourDSTEM(np.ones((6, 6, 8, 8), np.float32), positions=scattered))


def test_the_angle_is_finer_than_the_curve():
    """One degree costs 5 % of misfit on a crystal: the minimum is not one of the curve's points."""
    rng = np.random.default_rng(1)
    phase = gaussian_filter(rng.normal(size=(200, 200)), 6, mode="wrap")
    gy, gx = np.gradient(phase)
    t = np.radians(12.4)
    iy, ix = np.mgrid[-30:30, -30:30]
    at = [100 + np.cos(t) * iy + np.sin(t) * ix, 100 - np.sin(t) * iy + np.cos(t) * ix]
    com = np.stack([map_coordinates(g, at, order=3) for g in (gy, gx)], axis=-1)
    found = estimate_rotation(FourDSTEM(np.ones((60, 60, 4, 4), np.float32)), com)
    assert found.angle == pytest.approx(12.4, abs=0.3)
    assert abs(found.angles[found.curl.argmin()] - found.angle) <= 0.6
