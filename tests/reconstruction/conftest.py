"""What several tests of solvers share."""

from __future__ import annotations

import pytest

from .small import shorten_sampling


@pytest.fixture
def short_sampling(monkeypatch):
    """Whole atoms are sampled shortly: for tests of what a run does with its settings and states,
    not of how well it finds atoms."""
    shorten_sampling(monkeypatch.setattr)
