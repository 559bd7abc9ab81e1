import math

import pytest
import torch

from napari_mepdiff.physics.illumination import PARAMETERS, Illumination
from napari_mepdiff.physics.optics import Optics, aperture, frequencies, probe_from_parameters

OPTICS = Optics(
    semi_angle=15, overfocus=60, C12=8, phi12=0.4, C21=200, phi21=1.1, C30=5000, soft_edge=3
)
WINDOW, PIXEL = (32, 32), (0.4, 0.4)


def _spectrum(probe):
    return torch.fft.fft2(torch.fft.ifftshift(probe, dim=(-2, -1)), norm="ortho").flatten(1)


def test_a_coherent_probe_is_the_one_from_parameters():
    plain = probe_from_parameters(OPTICS, WINDOW, PIXEL, dtype=torch.complex128)
    light = Illumination(OPTICS, modes=4, window=WINDOW, pixel_size=PIXEL)
    assert light.probe().shape == (1, *WINDOW)
    overlap = complex(torch.vdot(light.probe().flatten(), plain.flatten()))
    assert abs(overlap) == pytest.approx(1, abs=1e-12)
    assert light.kept == pytest.approx(1)


def test_modes_are_the_density_matrix_of_gaussian_source_and_foci():
    light = Illumination(OPTICS, 0.3, 25.0, 400, WINDOW, PIXEL)
    modes = light.probe()
    power = modes.abs().square().sum((1, 2))
    gram = torch.einsum("mij,nij->mn", modes.conj(), modes)
    assert torch.allclose(gram, torch.diag(power).to(gram.dtype), atol=1e-10)
    assert bool((power.diff() <= 1e-15).all())
    assert float(power.sum()) == pytest.approx(1)
    assert light.kept > 1 - 2e-5
    spectrum = _spectrum(modes)
    ky, kx = (k.expand(WINDOW).flatten() for k in frequencies(WINDOW, PIXEL))
    distance = (ky[:, None] - ky) ** 2 + (kx[:, None] - kx) ** 2
    square = ky**2 + kx**2
    coherence = torch.exp(
        -2 * math.pi**2 * 0.3**2 * distance
        - 0.5 * (math.pi * OPTICS.wavelength * 25 * (square[:, None] - square)) ** 2
    )
    pure = _spectrum(probe_from_parameters(OPTICS, WINDOW, PIXEL, dtype=torch.complex128))[0]
    expected = pure[:, None] * pure.conj() * coherence
    found = spectrum.T @ spectrum.conj()
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    few = Illumination(OPTICS, 0.3, 25.0, 3, WINDOW, PIXEL)
    assert few.probe().shape[0] == 3
    assert few.kept == pytest.approx(float(power[:3].sum()), rel=1e-4)
    assert float(few.probe().abs().square().sum()) == pytest.approx(1)


@pytest.mark.parametrize("misfit", ["amplitude", "poisson"])
def test_gradients_of_a_loss_match_finite_differences(small, misfit):
    p = small(slices=2, scan=(3, 2))
    true = Illumination(OPTICS, 0.25, 20.0, 60, WINDOW, PIXEL)
    light = true.updated({"C10": 63.0, "C12a": 5.0, "source_size": 0.22, "focal_spread": 17.0})
    p.probe = true.probe() * 30
    y = p.likelihood().patterns(p.volume)
    p.probe = light.probe() * 30
    like = p.likelihood(y, misfit=misfit)
    assert light.kept > 0.9999

    def loss(at):
        p.probe = at.probe() * 30
        return p.likelihood(y, misfit=misfit).loss(p.volume)

    names = ["C10", "C12a", "C21b", "C34a", "C56b", "semi_angle", "soft_edge"]
    names += ["source_size", "focal_spread"]
    steps = {"C10": 0.05, "C12a": 0.05, "C21b": 2.0, "C34a": 300.0, "C56b": 1e6}
    steps |= {"semi_angle": 1e-4, "soft_edge": 1e-4, "source_size": 1e-4, "focal_spread": 0.01}
    g = light.pull(names, like.gradients(p.volume, probe=True).probe * 30)
    for name, value in zip(names, g.tolist(), strict=True):
        h, at = steps[name], light.value(name)
        f = [loss(light.updated({name: at + k * h})) for k in (-2, -1, 1, 2)]
        numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
        exact = name.startswith("C")
        assert value == pytest.approx(numeric, rel=1e-6 if exact else 1e-3), name


def test_a_measured_aperture_takes_the_place_of_the_round_one():
    ky, kx = frequencies(WINDOW, PIXEL)
    round_one = Illumination(OPTICS, 0.2, 0.0, 5, WINDOW, PIXEL)
    amplitude = torch.fft.fftshift(aperture(OPTICS, ky, kx)) * 7
    measured = Illumination(OPTICS, 0.2, 0.0, 5, WINDOW, PIXEL, amplitude)
    a, b = _spectrum(round_one.probe()), _spectrum(measured.probe())
    assert float((a.T @ a.conj() - b.T @ b.conj()).abs().max()) < 1e-12
    gradient = torch.ones((5, *WINDOW), dtype=torch.complex128)
    assert torch.isfinite(measured.pull(["C10", "source_size"], gradient)).all()
    with pytest.raises(ValueError, match="measured aperture has no semi_angle"):
        measured.pull(["semi_angle"], gradient)
    with pytest.raises(ValueError, match="pixels"):
        Illumination(OPTICS, window=(16, 16), pixel_size=PIXEL, amplitude=amplitude)


def test_impossible_illuminations_are_refused():
    with pytest.raises(ValueError, match="source_size"):
        Illumination(OPTICS, source_size=-1)
    with pytest.raises(ValueError, match="at least one"):
        Illumination(OPTICS, modes=0)
    with pytest.raises(ValueError, match="does not fit"):
        Illumination(Optics(semi_angle=100))
    light = Illumination(OPTICS, window=WINDOW, pixel_size=PIXEL)
    with pytest.raises(ValueError, match="no parameter is called"):
        light.updated({"tilt": 1.0})
    with pytest.raises(ValueError, match="the probe"):
        light.pull(["C10"], torch.ones((3, *WINDOW)))
    assert set(PARAMETERS) >= {"C10", "C56b", "semi_angle", "focal_spread"}
