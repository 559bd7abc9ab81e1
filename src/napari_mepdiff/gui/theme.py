"""Colours of napari's theme for the plots."""

from __future__ import annotations

from typing import Any


def theme_colours(viewer: Any) -> tuple[str, str]:
    """Background and foreground of the viewer's theme, as #rrggbb."""
    from napari.utils.theme import get_theme

    theme = get_theme(viewer.theme)
    return theme.background.as_hex(format="long"), theme.text.as_hex(format="long")
