"""`mepdiff diagnose`, and what `mepdiff reconstruct` says of a large misfit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from napari_mepdiff.measurement.formats import own
from napari_mepdiff.session.replay import read_record

from ..session.small import small_data
from .terminal import mepdiff

LBFGS = ("--solver", "lbfgs", "--slices", 4, "--slice-thickness", 1.6, "--set", "iterations=3")


def test_a_gain_is_named_with_the_option_that_helps(tmp_path):
    data = small_data(truth=False)
    scaled = replace(data, data=(np.asarray(data.data) * 20.7).astype(np.float32))
    own.save(scaled, tmp_path / "scaled.h5")
    code, said = mepdiff("reconstruct", "scaled.h5", "-o", "volume.h5", *LBFGS, cwd=tmp_path)
    assert code == 0, said
    assert "not in electrons" in said
    assert "add --gain 20.7" in said
    assert "not in electrons" in read_record(tmp_path / "volume.h5").outcome.verdict
    code, said = mepdiff(
        "diagnose", "volume.h5", "-o", "why.png", "--json", "why.json", cwd=tmp_path
    )
    assert code == 0, said
    assert "add --gain 20.7" in said
    assert (tmp_path / "why.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads((tmp_path / "why.json").read_text())
    assert found["causes"][0]["name"] == "gain"
    assert found["remedies"][0]["preparation"] == {"gain": 20.7}
    assert len(found["profile"]["angle_mrad"]) == len(found["profile"]["chi2"])
    code, said = mepdiff("diagnose", "volume.h5", "-o", "why.png", cwd=tmp_path)
    assert code == 1
    assert "--overwrite" in said
    # what was said to be added helps
    code, said = mepdiff(
        "reconstruct", "scaled.h5", "-o", "again.h5", *LBFGS, "--gain", 20.7, cwd=tmp_path
    )
    assert code == 0, said
    assert "not in electrons" not in said


def test_a_file_without_a_record_is_refused(tmp_path):
    own.save(small_data(), tmp_path / "small.h5")
    code, said = mepdiff("diagnose", "small.h5", cwd=tmp_path)
    assert code == 1
    assert "small.h5" in said
