"""Training proves its device first, whoever calls it."""

from __future__ import annotations

import pytest

from napari_mepdiff.prior import self_test
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training import run
from napari_mepdiff.training.run import train

from ..cli.test_devices import gpu  # noqa: F401
from .small import SETTINGS


def test_a_script_trains_only_on_a_device_that_computes_rightly(gpu, tmp_path, monkeypatch):  # noqa: F811
    """Only the command line asked: a script got weights from wrong kernels, without a word."""
    structures = load_structures().part("validation")
    with pytest.raises(ValueError, match="does not compute what the CPU computes"):
        next(train(SETTINGS, structures, tmp_path / "run", steps=1, device="cuda:0"))
    with pytest.raises(ValueError, match="'mps' is refused"):
        next(train(SETTINGS, structures, tmp_path / "run", steps=1, device="mps"))
    assert not list(tmp_path.iterdir())
    gpu["there"], tested = 1.0, []
    original = self_test.self_test
    monkeypatch.setattr(self_test, "self_test", lambda d: (tested.append(d), original(d))[1])
    monkeypatch.setattr(run, "_trainer", lambda *_: 1 / 0)  # far enough
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            next(train(SETTINGS, structures, tmp_path / "run", steps=1, device="cuda:0"))
    assert tested == ["cuda:0"]  # once
