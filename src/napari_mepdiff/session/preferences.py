"""Preferences: what napari finds again next time: choices, the last file, what was exported."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..base.files import atomic
from ..base.folders import preferences_file
from .choices import Choices, valid_fields

log = logging.getLogger(__name__)


def save(choices: Choices, path: str, options: dict[str, Any], exported: list[str]) -> None:
    """Remember. A disk that cannot be written is no reason to disturb anyone; it is logged."""
    record = {
        "choices": choices.model_dump(mode="json"),
        "path": path,
        "options": options,
        "exported": exported,
    }
    target = preferences_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as temporary:
            temporary.write_text(json.dumps(record, indent=1))
    except OSError as error:
        log.warning("the choices are not remembered: %s", error)


def load() -> tuple[Choices, str, dict[str, Any], list[str]]:
    """What was remembered; the defaults for what is not there or was written by another version.

    Field by field: one that is stale costs no other.
    """
    try:
        record = json.loads(preferences_file().read_text())
    except (OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("the remembered choices cannot be read: %s", error)
        return Choices(), "", {}, []
    if not isinstance(record, dict):
        return Choices(), "", {}, []
    kept = record.get("choices")
    choices = _choices(kept if isinstance(kept, dict) else {})
    options = record.get("options")
    options = dict(options) if isinstance(options, dict) else {}
    if options.get("scan_shape"):
        options["scan_shape"] = tuple(options["scan_shape"])
    listed = record.get("exported")
    exported = [str(p) for p in listed if Path(str(p)).exists()] if isinstance(listed, list) else []
    return choices, str(record.get("path", "")), options, exported


def _choices(kept: dict[str, Any]) -> Choices:
    parts: dict[str, Any] = {}
    for name, field in Choices.model_fields.items():
        value = kept.get(name)
        if not isinstance(value, dict):
            continue
        if name == "settings":
            parts[name] = {s: valid_fields(s, v) for s, v in value.items() if isinstance(v, dict)}
            parts[name] = {s: v for s, v in parts[name].items() if v}
        else:
            model = field.annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            parts[name] = _part(model, value)
    return Choices(**parts)


def _part(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel:
    """A part of the choices from the fields that are valid today."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            model.model_validate({**kept, name: value})
        except ValidationError as error:
            log.info("a remembered value is dropped: %s", " ".join(str(error).split()))
        else:
            kept[name] = value
    return model.model_validate(kept)
