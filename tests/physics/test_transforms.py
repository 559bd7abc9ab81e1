"""The engine on CPU cores without FFTW: the same numbers, and a word about it."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.engines import transforms


@pytest.fixture
def without_fftw(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyfftw", None)
    transforms.fftw_there.cache_clear()
    yield
    transforms.fftw_there.cache_clear()


@pytest.mark.parametrize("band_limit", [None, 2 / 3])
@pytest.mark.parametrize("misfit", ["intensity", "poisson"])
def test_gradients_are_those_of_double_precision(small, without_fftw, misfit, band_limit):
    exact = small()
    patterns = exact.patterns()
    loss, gradient = exact.likelihood(patterns, misfit=misfit, band_limit=band_limit)(exact.volume)
    like = small(dtype=torch.float32).likelihood(patterns, misfit=misfit, band_limit=band_limit)
    quick_loss, quick = like(exact.volume.float())
    assert quick_loss == pytest.approx(loss, rel=1e-4)
    assert (quick - gradient).norm() < 1e-4 * gradient.norm()
    assert torch.equal(like(exact.volume.float())[1], quick)


def test_probe_and_positions_too(small, without_fftw):
    exact = small(modes=2)
    patterns = exact.patterns()
    wanted = exact.likelihood(patterns).gradients(exact.volume, probe=True, positions=True)
    rough = small(dtype=torch.float32, modes=2).likelihood(patterns)
    got = rough.gradients(exact.volume.float(), probe=True, positions=True)
    for name in ("volume", "probe", "positions"):
        a, b = getattr(got, name), getattr(wanted, name)
        assert (a - b).norm() < 1e-3 * b.norm(), name


def test_it_is_said_once(small, without_fftw, caplog):
    """Runs of twice the time would pass for what this program can do."""
    p = small(dtype=torch.float32)
    with caplog.at_level(logging.WARNING):
        p.likelihood(torch.ones(p.count, 32, 32))(p.volume)
        p.likelihood(torch.ones(p.count, 32, 32))(p.volume)
    said = [r.message for r in caplog.records if "FFTW is not installed" in r.message]
    assert len(said) == 1
    assert 'pip install "napari-mepdiff[fast]"' in said[0]


def test_neither_direction_scales():
    rng = np.random.default_rng(0)
    wave = (rng.normal(size=(2, 1, 6, 8)) + 1j).astype(np.complex64)
    source, target = wave.copy(), np.empty_like(wave)
    transforms.SciPyTransform(source, target).execute()
    assert target[0, 0, 0, 0] == pytest.approx(wave[0, 0].sum(), rel=1e-5)
    transforms.SciPyTransform(target, target, inverse=True).execute()
    assert np.allclose(target, wave * 48, rtol=1e-4, atol=1e-4)
