"""Memory: what napari finds again next time: choices, the last file, what was exported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..files import atomic
from .choices import Choices

PLACE = "MEPDIFF_CONFIG"  # environment variable that names another file


def place() -> Path:
    """The file."""
    given = os.environ.get(PLACE)
    if given:
        return Path(given)
    from platformdirs import user_config_dir

    return Path(user_config_dir("napari-mepdiff", appauthor=False)) / "last.json"


def save(choices: Choices, path: str, options: dict[str, Any], exported: list[str]) -> None:
    """Remember. A disk that cannot be written is no reason to disturb anyone."""
    record = {"choices": choices.model_dump(mode="json"), "path": path, "options": options, "exported": exported}
    try:
        target = place()
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as temporary:
            temporary.write_text(json.dumps(record, indent=1))
    except OSError:
        return


def preference(name: str, default: bool) -> bool:
    """A switch of File ▸ Preferences ▸ Plugins, as the manifest declares it."""
    try:
        from napari.settings import get_plugin_settings

        return bool(getattr(get_plugin_settings("napari-mepdiff").general, name))
    except (ImportError, AttributeError, KeyError):  # not installed as a plugin
        return default


def load() -> tuple[Choices, str, dict[str, Any], list[str]]:
    """What was remembered; the defaults for what is not there or was written by another version."""
    try:
        record = json.loads(place().read_text())
    except (OSError, ValueError):
        return Choices(), "", {}, []
    parts: dict[str, Any] = {}
    kept = record.get("choices", {}) if isinstance(record, dict) else {}
    for name, field in Choices.model_fields.items():
        if name in kept:
            try:  # part by part: one stale field must not cost the rest
                parts[name] = Choices.model_validate({name: kept[name]}).__getattribute__(name)
            except ValidationError:
                parts[name] = field.get_default(call_default_factory=True)
    options = record.get("options", {})
    if options.get("scan_shape"):
        options["scan_shape"] = tuple(options["scan_shape"])
    exported = [str(p) for p in record.get("exported", []) if Path(str(p)).exists()]
    return Choices(**parts), str(record.get("path", "")), options, exported
