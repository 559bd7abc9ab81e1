import math

import pytest
import torch

from napari_mepdiff.physics.illumination import Illumination
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.physics.probe_fit import fit_optics

WINDOW, PIXEL = (64, 64), (0.2, 0.2)
TRUE = Optics(
    semi_angle=21.4, overfocus=205, C12=15, phi12=0.4, C21=300, phi21=1.1, C30=5000, soft_edge=2
)
START = Optics(semi_angle=20.5, overfocus=180, C30=5000, soft_edge=1.5)
NAMES = ("C10", "C12a", "C12b", "C21a", "C21b", "semi_angle", "soft_edge", "source_size")


def _measured(noise: float, shift: float = 0.0) -> torch.Tensor:
    """Modes in another unitary mixing, with a global phase, a shift, and noise."""
    modes = Illumination(TRUE, 0.25, 0.0, 6, WINDOW, PIXEL).probe()
    rng = torch.Generator().manual_seed(3)
    unitary, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.complex128, generator=rng))
    modes = torch.einsum("mn,nyx->myx", unitary, modes) * 500
    f = torch.fft.fftfreq(64, 0.2, dtype=torch.float64)
    ramp = torch.exp(-2j * math.pi * shift * (f[:, None] - 0.5 * f[None]))
    spectrum = torch.fft.fft2(torch.fft.ifftshift(modes, dim=(-2, -1)))
    modes = torch.fft.fftshift(torch.fft.ifft2(spectrum * ramp), dim=(-2, -1))
    error = torch.randn(modes.shape, dtype=torch.complex128, generator=rng)
    return modes + noise * error * modes.norm() / error.norm()


@pytest.mark.parametrize(("noise", "shift"), [(0.0, 0.0), (0.01, 0.13)])
def test_optics_are_read_off_a_pixel_probe(noise, shift):
    fit = fit_optics(_measured(noise, shift), START, PIXEL, NAMES)
    found, true = fit.optics.cartesian, TRUE.cartesian
    for name, within in (("C10", 0.3), ("C12a", 0.3), ("C12b", 0.3), ("C21a", 6), ("C21b", 6)):
        assert found[name] == pytest.approx(true[name], abs=within), name
    assert fit.optics.semi_angle == pytest.approx(21.4, abs=0.15)
    assert fit.source_size == pytest.approx(0.25, abs=0.01)
    assert fit.shift == pytest.approx((shift, -0.5 * shift), abs=0.01)
    assert fit.residual < 0.1
    assert fit.mismatch < 0.01
    assert set(fit.uncertainties) == set(NAMES)
    assert fit.uncertainties["C10"] < 1


def test_a_far_start_does_not_wrap():
    far = START.model_copy(update={"overfocus": 0.0})
    fit = fit_optics(_measured(0.01), far, PIXEL, NAMES[:5])
    assert fit.optics.overfocus == pytest.approx(205, abs=0.3)
    assert fit.optics.semi_angle == far.semi_angle


def test_source_and_foci_are_told_apart():
    light = Illumination(TRUE, 0.15, 25.0, 8, WINDOW, PIXEL)
    fit = fit_optics(light.probe(), TRUE, PIXEL, ("source_size", "focal_spread"))
    assert fit.source_size == pytest.approx(0.15, abs=0.005)
    assert fit.focal_spread == pytest.approx(25, abs=1)
    assert fit.optics == TRUE


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(ValueError, match="tilt"):
        fit_optics(_measured(0.0), START, PIXEL, ("tilt",))
    with pytest.raises(ValueError, match="complex"):
        fit_optics(torch.ones(8, 8), START, PIXEL, ("C10",))
    with pytest.raises(ValueError, match="too few pixels"):
        fit_optics(_measured(0.0), Optics(semi_angle=0.5), PIXEL, ("C10",))
