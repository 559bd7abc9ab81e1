"""Conditions of training: true volumes made into what ordinary solvers return."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dct

from napari_mepdiff.evaluation.metrics import depth_correlation
from napari_mepdiff.prior.process import SCALE
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.corruption import Dropout, corrupt, harmonics
from napari_mepdiff.training.stream import CrystalStream


@pytest.fixture(scope="module")
def volumes():
    return SCALE * CrystalStream(load_structures().part("validation")).fixed(limit=48)[0]


def test_the_harmonics_are_scipys():
    x = np.random.default_rng(0).random((8, 3))
    assert np.allclose(harmonics(8).numpy() @ x, dct(x, axis=0, norm="ortho"), atol=1e-6)


def test_shares_of_what_is_known(volumes):
    x = volumes.repeat(6, 1, 1, 1)[:, :, :16, :16]
    condition, flags = corrupt(x, torch.Generator().manual_seed(0), Dropout(0.35, 0.25))
    nothing, only_sum = flags[:, 0] == 0, (flags[:, 0] == 1) & (flags[:, 1] == 0)
    assert nothing.float().mean() == pytest.approx(0.35, abs=0.08)
    assert only_sum.float().mean() == pytest.approx(0.25, abs=0.08)
    assert condition[nothing].abs().max() == 0
    assert flags[nothing].abs().max() == 0
    assert condition[only_sum, 1].abs().max() == 0
    assert condition[only_sum, 0].std(dim=1).max() < 1e-5  # the same in every slice


def test_the_mean_is_right_but_for_its_resolution_and_the_trust_is_the_depth_correlation(volumes):
    condition, flags = corrupt(volumes, torch.Generator().manual_seed(1), Dropout(0.0, 0.0))
    truth = volumes.mean(dim=1)
    corr = [
        np.corrcoef(a.ravel(), b[0].ravel())[0, 1]
        for a, b in zip(truth.numpy(), condition[:, 0].numpy(), strict=True)
    ]
    assert min(corr) > 0.75  # the most strongly blurred
    assert np.median(corr) > 0.97
    trust = flags[:, 2].numpy()
    true = np.array(
        [
            max(0, depth_correlation(a, b))
            for a, b in zip(volumes.numpy(), condition.sum(dim=1).numpy(), strict=True)
        ]
    )
    assert np.abs(trust - true).mean() < 0.08
    assert trust.min() < 0.25
    assert trust.max() > 0.8


def test_corruption_looks_like_what_solvers_return(volumes):
    """First harmonic about right, second weak, the rest mostly absent or wrong
    (benchmarks/solver_outputs.py).
    """
    condition, flags = corrupt(
        volumes.repeat(4, 1, 1, 1), torch.Generator().manual_seed(2), Dropout(0.0, 0.0)
    )
    x = volumes.repeat(4, 1, 1, 1).numpy()
    trust = flags[:, 2].numpy()
    coherence = []
    for a, b in zip(x, condition[:, 1].numpy(), strict=True):
        p, q = (dct(v, axis=0, norm="ortho").reshape(8, -1) for v in (a, b))
        coherence.append(
            [
                (p[k] @ q[k]) / (np.linalg.norm(p[k]) * np.linalg.norm(q[k]) + 1e-9)
                for k in range(1, 8)
            ]
        )
    weak = np.array(coherence)[trust < 0.4]
    assert 0.55 < weak[:, 0].mean() < 0.97
    assert weak[:, 1].mean() < 0.6
    assert np.abs(weak[:, 3:].mean()) < 0.35


def test_corruption_is_repeatable_and_takes_any_shape(volumes):
    a = corrupt(volumes[:3, :5, :24, :40], torch.Generator().manual_seed(0))
    b = corrupt(volumes[:3, :5, :24, :40], torch.Generator().manual_seed(0))
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert a[0].shape == (3, 2, 5, 24, 40)
    assert all(torch.isfinite(t).all() for t in a)
