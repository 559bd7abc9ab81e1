"""The gain of a detector, from how the counts scatter."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import FourDSTEM
from napari_mepdiff.microscope.counts import estimate_counts

from .thin import record


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return np.asarray(record(0, dose=3000).data)


def test_counts_are_counts(counts):
    found = estimate_counts(FourDSTEM(counts))
    assert (found.kind, found.gain, found.step) == ("counts", 1.0, 1.0)
    assert found.electrons == pytest.approx(3000, rel=0.02)


@pytest.mark.parametrize("gain", [37.0, 0.013])
def test_a_gain_is_noticed(counts, gain):
    found = estimate_counts(FourDSTEM((counts * gain).astype(np.float32)))
    assert abs(found.gain - gain) < 3 * found.error
    assert found.electrons == pytest.approx(3000, rel=0.1)
    assert "divide by it" in found.message


def test_patterns_of_sum_one_have_no_step_but_scatter(counts):
    own = counts / counts.sum(axis=(2, 3), keepdims=True)
    found = estimate_counts(FourDSTEM(own.astype(np.float32)))
    assert found.kind == "normalised"
    assert abs(1 / found.gain - 3000) < 3000 * 3 * found.error / found.gain


def test_what_is_no_counting_is_said(counts):
    clean = estimate_counts(record(0, dose=None))
    assert (clean.kind, clean.gain) == ("unknown", None)
    assert "cannot be known" in clean.message
    noise = np.random.default_rng(0).normal(0, 0.3, counts.shape)
    assert estimate_counts(FourDSTEM(counts * 37 + noise)).kind == "unknown"
    single = estimate_counts(FourDSTEM(counts[:1, :1]))
    assert single.gain is None
    assert "5 neighbouring positions" in single.message
