"""Nothing is read from, or left in, the places of the person who runs the tests."""

from __future__ import annotations

import pytest

from .small import prior_file, small_file


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("MEPDIFF_CONFIG", str(tmp_path / "last.json"))
    monkeypatch.setenv("MEPDIFF_RECOVERY", str(tmp_path / "recovery"))


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """A file with the small measurement."""
    return small_file(tmp_path_factory.mktemp("measured") / "small.h5")


@pytest.fixture(scope="session")
def prior(tmp_path_factory):
    """A tiny prior in a file."""
    return prior_file(tmp_path_factory.mktemp("prior") / "tiny.safetensors")
