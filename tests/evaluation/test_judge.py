"""Scores with a measurement at hand, and what is said where one of them cannot be had."""

from __future__ import annotations

from dataclasses import fields, replace

import dask.array as da
import numpy as np
import pytest

from napari_mepdiff.evaluation.judge import judge
from napari_mepdiff.evaluation.metrics import TITLES, Scores
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.specimen.volume import Volume


@pytest.fixture(scope="module")
def sample():
    return open_sample("mos2")


def test_the_truth_is_at_shot_noise_and_nothing_is_missing(sample):
    scores = judge(sample.truth, sample.truth, sample)
    assert scores.deviance == pytest.approx(1, abs=0.03)
    assert scores.atoms_in_slice > 0.97
    assert not scores.missing
    assert set(scores.as_dict()) == set(TITLES) == {f.name for f in fields(Scores)} - {"missing"}


def test_damaged_patterns_are_named_beside_the_scores(sample):
    """A user whose file is half gone must not take scores without a misfit for a whole answer."""

    def broken(block):
        raise OSError("Input/output error")

    lost = replace(
        sample,
        data=da.map_blocks(broken, sample.data, dtype=sample.data.dtype, meta=np.empty((0,) * 4)),
    )
    scores = judge(sample.truth, sample.truth, lost)
    assert scores.deviance is None
    assert scores.ssim == pytest.approx(1)
    assert "Input/output error" in scores.missing["deviance"]


def test_a_volume_on_another_grid_than_the_measurement_s_is_named(sample):
    part = sample.truth.crop(slice(None), slice(0, 32))
    scores = judge(part, part, sample)
    assert scores.deviance is None
    assert "the data ask for" in scores.missing["deviance"]


def test_no_measurement_and_one_that_was_not_asked_for_are_told_apart(sample):
    alone = judge(sample.truth, sample.truth)
    assert alone.missing == {
        "atoms_in_slice": "the places of the atoms are not known",
        "deviance": "no measurement was given",
    }
    why = judge(sample.truth, sample.truth, no_data="x.h5 cannot be read")
    assert why.missing["deviance"] == "x.h5 cannot be read"
    quick = judge(sample.truth, sample.truth, sample, with_deviance=False)
    assert quick.missing == {"deviance": "it was not asked for"}


def test_atoms_of_a_measurement_do_not_judge_against_another_volume(sample):
    """Two reconstructions of one crystal compared: the crystal's atoms are not those of either."""
    other = Volume(
        sample.truth.array[::-1].copy(), sample.truth.voxel_size, energy=sample.truth.energy
    )
    scores = judge(sample.truth, other, sample, with_deviance=False)
    assert scores.atoms_in_slice is None
    assert "not the ground truth" in scores.missing["atoms_in_slice"]
    in_volts = judge(sample.truth, sample.truth.to_unit("V·Å"), sample, with_deviance=False)
    assert in_volts.atoms_in_slice > 0.97


def test_a_volume_even_over_depth_correlates_with_nothing(sample):
    flat = Volume(sample.truth.array[:3].mean(axis=0)[None].repeat(3, 0), (1.6, 0.2, 0.2))
    assert judge(flat, flat).depth_correlation == 0.0
