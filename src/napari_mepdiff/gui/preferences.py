"""Switches of File ▸ Preferences ▸ Plugins, as the manifest declares them."""

from __future__ import annotations

import contextlib


def preference(name: str, default: bool) -> bool:
    """Whether a switch is on; the default where the plugin is not installed as one."""
    try:
        from napari.settings import get_plugin_settings

        return bool(getattr(get_plugin_settings("napari-mepdiff").general, name))
    except (ImportError, AttributeError, KeyError):
        return default


def read() -> None:
    """Have napari read the switches; the first time it goes through every installed package."""
    from npe2 import PluginManager

    with contextlib.suppress(Exception):  # who asks for a switch is told
        if "napari-mepdiff" in {m.name for m in PluginManager.instance().iter_manifests()}:
            preference("restore", False)
