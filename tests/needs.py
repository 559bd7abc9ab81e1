"""Tests that need a package of an extra: skipped, with the reason, where it is missing."""

from __future__ import annotations

import pytest

from napari_mepdiff.base.extras import available, package_of


def needs(*modules: str) -> pytest.MarkDecorator:
    """A mark for a test, a class or a module (``pytestmark = needs("abtem")``)."""
    missing = [package_of(m) for m in modules if not available(m)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
