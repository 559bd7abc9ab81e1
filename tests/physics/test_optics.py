import numpy as np
import pytest
import torch

from napari_mepdiff.physics.optics import (
    Optics,
    add_modes,
    frequencies,
    interaction_parameter,
    probe_from_array,
    probe_from_parameters,
    probe_from_vacuum,
    wavelength,
)

from ..needs import needs


def test_wavelength_and_interaction_parameter_are_the_published_ones():
    assert wavelength(300) == pytest.approx(0.0196875, rel=1e-5)
    assert wavelength(80) == pytest.approx(0.0417572, rel=1e-5)  # Kirkland, table
    assert interaction_parameter(300) == pytest.approx(6.52616e-4, rel=1e-5)


@needs("abtem")
def test_wavelength_and_interaction_agree_with_abtem():
    from abtem.core.energy import energy2sigma, energy2wavelength

    for energy in (60, 120, 300):
        assert wavelength(energy) == pytest.approx(energy2wavelength(energy * 1e3), rel=1e-6)
        assert interaction_parameter(energy) == pytest.approx(energy2sigma(energy * 1e3), rel=1e-5)


@needs("abtem")
@pytest.mark.parametrize(
    "extra",
    [{}, {"C12": 30.0, "phi12": 0.4}, {"C21": 900.0, "phi21": 1.1}, {"C23": 700.0, "phi23": -0.3}],
)
def test_probe_is_abtems(extra):
    import abtem

    optics = Optics(**extra)
    n, d = 128, 0.2
    ours = probe_from_parameters(optics, (n, n), (d, d), dtype=torch.complex128)[0].numpy()
    aberrations = {"C10": 200.0, "C30": 5000.0, **extra}
    theirs = abtem.Probe(
        energy=300e3,
        semiangle_cutoff=21.4,
        soft=False,
        aberrations=aberrations,
        gpts=n,
        extent=n * d,
    ).build(abtem.CustomScan(np.array([[n // 2 * d] * 2])), lazy=False)
    theirs = np.asarray(theirs.array).reshape(n, n).T.astype(complex)
    theirs /= np.sqrt((abs(theirs) ** 2).sum())
    phase = np.vdot(theirs, ours)
    assert abs(phase) == pytest.approx(1, abs=2e-5)


def test_positive_c10_is_overfocus_and_the_sign_matters():
    a, b = (
        probe_from_parameters(Optics(overfocus=s), (128, 128), (0.2, 0.2))[0]
        for s in (200.0, -200.0)
    )
    assert abs(torch.vdot(a.flatten(), b.flatten())) < 0.6


@needs("ptyrad")
def test_probe_is_normalised_centred_and_ptyrads():
    from ptyrad.optics.probe import make_stem_probe

    ours = probe_from_parameters(Optics(), (128, 128), (0.2, 0.2))[0]
    assert float(ours.abs().square().sum()) == pytest.approx(1, abs=1e-5)
    intensity = ours.abs().square().numpy()
    grid = np.arange(128) - 64
    assert abs((intensity.sum(1) * grid).sum()) < 0.05
    theirs = make_stem_probe(
        kv=300, conv_angle=21.4, Npix=128, dx=0.2, aberrations={"defocus": -200, "Cs": 5000}
    )
    theirs = np.asarray(theirs, dtype=complex)
    theirs /= np.sqrt((abs(theirs) ** 2).sum())
    assert abs(np.vdot(theirs, ours.numpy())) == pytest.approx(1, abs=1e-4)


def test_soft_edge_lies_around_the_hard_one():
    hard, soft = (Optics(soft_edge=e) for e in (0.0, 4.0))
    ky, kx = frequencies((128, 128), (0.2, 0.2))
    from napari_mepdiff.physics.optics import aperture

    a, b = aperture(hard, ky, kx), aperture(soft, ky, kx)
    assert set(a.unique().tolist()) == {0.0, 1.0}
    assert float(b.sum() / a.sum()) == pytest.approx(1, abs=0.02)
    assert ((b > 0.01) & (b < 0.99)).sum() > 300


def test_vacuum_pattern_gives_the_probe_it_came_from():
    optics = Optics()
    probe = probe_from_parameters(optics, (64, 64), (0.2, 0.2), dtype=torch.complex128)
    pattern = torch.fft.fftshift(torch.fft.fft2(probe[0], norm="ortho")).abs().square() * 1e5
    again = probe_from_vacuum(pattern, optics, (0.2, 0.2), dtype=torch.complex128)
    assert torch.allclose(again, probe, atol=1e-9)
    with pytest.raises(ValueError, match="vacuum pattern"):
        probe_from_vacuum(-pattern, optics, (0.2, 0.2))


def test_modes_are_orthogonal_and_share_the_intensity():
    modes = probe_from_parameters(Optics(), (64, 64), (0.2, 0.2), modes=4, dtype=torch.complex128)
    gram = torch.einsum("mij,nij->mn", modes.conj(), modes)
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-9)
    assert float(gram.diagonal().real.sum()) == pytest.approx(1)
    assert float(gram[0, 0].real) == pytest.approx(0.94)
    with pytest.raises(ValueError, match="at least one"):
        add_modes(modes[0], 0)


def test_bad_probes_are_refused():
    with pytest.raises(ValueError, match="complex"):
        probe_from_array(torch.ones(4, 4))
    with pytest.raises(ValueError, match="NaN"):
        probe_from_array(torch.full((4, 4), complex("nan")))
    with pytest.raises(ValueError, match="does not fit"):
        probe_from_parameters(Optics(semi_angle=100), (64, 64), (0.2, 0.2))
    with pytest.raises(ValueError, match="positive"):
        wavelength(-3)
