"""Held to the field's own codes: PtyRAD and abTEM."""

import numpy as np
import pytest
import torch

from napari_mepdiff.evaluation.judge import data_deviance
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.measurement.simulate import diffraction
from napari_mepdiff.physics.engines.ptyrad import PtyRADLikelihood
from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.specimen.volume import Volume

from ..needs import needs

COMMON = {"pixel_size": (0.2, 0.2), "slice_thickness": 1.6, "energy": 300.0}


@needs("ptyrad")
@pytest.mark.parametrize("misfit", ["intensity", "amplitude", "poisson"])
@pytest.mark.parametrize("boundary", ["periodic", "extended"])
def test_same_patterns_and_gradient_as_ptyrad(misfit, boundary):
    window = 64
    canvas = 64 if boundary == "periodic" else 96
    probe = probe_from_parameters(Optics(), (window, window), (0.2, 0.2)) * 300
    shape = (6, canvas, canvas)
    volume = torch.rand(shape) * 0.3
    origin = (0.0, 0.0) if boundary == "periodic" else (6.6, 6.7)
    positions = Raster(shape=(4, 5), step=(0.9, 1.1), origin=origin).positions()
    clean = Likelihood(
        torch.zeros(20, window, window),
        probe,
        positions,
        shape,
        propagator="exact",
        boundary=boundary,
        **COMMON,
    ).patterns(volume)
    y = torch.poisson(clean)
    ours = Likelihood(
        y, probe, positions, shape, propagator="exact", misfit=misfit, boundary=boundary, **COMMON
    )
    theirs = PtyRADLikelihood(
        y, probe, positions, shape, misfit=misfit, boundary=boundary, chunk=7, **COMMON
    )
    a, b = ours.patterns(volume), theirs.patterns(volume)
    assert float((a - b).norm() / b.norm()) < 1e-4
    (la, ga), (lb, gb) = ours(volume * 0.6), theirs(volume * 0.6)
    assert la == pytest.approx(lb, rel=1e-4)
    assert float((ga - gb).norm() / gb.norm()) < 1e-4


@needs("ptyrad")
def test_several_probe_modes_as_ptyrad():
    probe = probe_from_parameters(Optics(), (64, 64), (0.2, 0.2), modes=3) * 300
    positions = Raster(shape=(2, 3), step=(0.9, 1.1)).positions()
    volume = torch.rand(4, 64, 64) * 0.3
    y = torch.zeros(6, 64, 64)
    a = Likelihood(y, probe, positions, (4, 64, 64), propagator="exact", **COMMON).patterns(volume)
    b = PtyRADLikelihood(y, probe, positions, (4, 64, 64), **COMMON).patterns(volume)
    assert float((a - b).norm() / b.norm()) < 1e-4


@needs("ptyrad")
def test_ptyrad_s_gradient_is_the_same_from_call_to_call():
    """With threads, the adjoint of its indexing is not, and no run could be played back."""
    probe = probe_from_parameters(Optics(), (64, 64), (0.2, 0.2)) * 300
    positions = Raster(shape=(6, 6), step=(0.3, 0.3)).positions()  # windows that overlap
    y = torch.rand(36, 64, 64)
    theirs = PtyRADLikelihood(y, probe, positions, (4, 64, 64), **COMMON)
    volume = torch.rand(4, 64, 64) * 0.3
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first, *others = (theirs(volume)[1] for _ in range(6))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for other in others)


@needs("abtem")
def test_same_patterns_as_abtem_on_a_smooth_object():
    rng = np.random.default_rng(0)
    kernel = np.exp(
        -((np.hypot(*np.meshgrid(np.fft.fftfreq(64, 0.2), np.fft.fftfreq(64, 0.2))) / 0.6) ** 2)
    )
    smooth = np.fft.ifft2(np.fft.fft2(rng.random((8, 64, 64))) * kernel).real
    smooth = 0.4 * (smooth - smooth.min()) / np.ptp(smooth)
    optics, positions = Optics(), Raster(shape=(3, 3), step=(3.1, 2.7)).positions()
    theirs = diffraction(Volume(smooth), positions, optics, 128)
    probe = probe_from_parameters(optics, (128, 128), (0.2, 0.2))
    like = Likelihood(
        np.zeros((9, 128, 128)), probe, positions, (8, 64, 64), background=0.0, **COMMON
    )
    ours = like.patterns(torch.from_numpy(smooth)).double().numpy()
    errors = np.linalg.norm((ours - theirs).reshape(9, -1), axis=1) / np.linalg.norm(
        theirs.reshape(9, -1), axis=1
    )
    assert errors.max() < 5e-3
    limited = Likelihood(
        np.zeros((9, 128, 128)),
        probe,
        positions,
        (8, 64, 64),
        background=0.0,
        band_limit=2 / 3,
        **COMMON,
    )
    again = limited.patterns(torch.from_numpy(smooth)).double().numpy()
    assert np.linalg.norm(again - theirs) / np.linalg.norm(theirs) < 5e-4


@pytest.mark.parametrize("name", ["srtio3", "mos2", "litao3", "cuwo4", "cuwo4_low_dose"])
def test_truth_sits_at_shot_noise_of_abtem_data(name):
    data = open_sample(name)
    assert data_deviance(data.truth, data) == pytest.approx(1, abs=0.01)


def test_without_the_band_limit_it_does_not():
    from dataclasses import replace

    data = replace(open_sample("srtio3"), band_limit=None)
    assert abs(data_deviance(data.truth, data) - 1) > 0.03


def test_extended_geometry_is_close_to_shot_noise():
    """The window cuts the tails of the probe, which see the specimen further out: a few percent
    above."""
    data = open_sample("cuwo4_extended")
    assert data_deviance(data.truth, data) == pytest.approx(1, abs=0.06)
