"""Settings as people type them: ``name=value``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any


def parse_fields(pairs: Iterable[str]) -> dict[str, Any]:
    """``name=value`` with JSON values, lists by commas, or plain words, by name.

    Raises
    ------
    ValueError
        If one has no equals sign.
    """
    out: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise ValueError(f"give setting=value; got {pair!r}")
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text.split(",") if "," in text else text
            if isinstance(value, list):
                with contextlib.suppress(ValueError):
                    value = [float(v) for v in value]
        if name.strip() in ("elements", "learning_rates") and not isinstance(value, (list, tuple)):
            value = [value]
        out[name.strip()] = value
    return out
