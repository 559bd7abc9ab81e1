"""The desk of tests/gui."""

from tests.gui.conftest import _places, desk, prior_file  # noqa: F401
