"""`mepdiff info --estimate`."""

from __future__ import annotations

import json

import pytest

from napari_mepdiff.measurement.formats.own import save

from ..microscope.thin import record
from .terminal import mepdiff


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    save(record(6, rotation=30.0, scan=(16, 16)), folder / "thin.h5")
    return folder


def test_told_and_estimated_stand_in_one_table(folder):
    code, said = mepdiff("info", "thin.h5", "--estimate", cwd=folder)
    assert code == 0, said
    for word in ("told", "estimated", "scan rotation", "C10", "gain", "transpose", "note:"):
        assert word in said


def test_json_is_json(folder):
    code, said = mepdiff("info", "thin.h5", "--estimate", "--json", cwd=folder)
    assert code == 0, said
    values = {v["name"]: v for v in json.loads(said[said.index("{") :])["values"]}
    assert abs(abs(values["C10"]["value"]) - 250) < 3 * values["C10"]["error"]


def test_json_alone_is_refused(folder):
    code, said = mepdiff("info", "thin.h5", "--json", cwd=folder)
    assert code != 0
    assert "--estimate" in said
