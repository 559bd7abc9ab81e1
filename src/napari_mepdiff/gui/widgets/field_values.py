"""What a settings field takes, and its values as people write and read them."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

TEXT: dict[Any, str] = {int: "int", float: "float", str: "text"}


def parse(text: str, kind: str, optional: bool, item: str) -> Any:
    if text == "" and optional:
        return None
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text.replace(",", "."))
    if kind == "list":
        parts = [p for p in text.replace(";", ",").replace(" ", ",").split(",") if p]
        return tuple(float(p) for p in parts) if item == "float" else tuple(parts)
    return text


def kind_of(annotation: Any) -> tuple[Any, bool]:
    """The type of a field without None, and whether None is allowed."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        return (rest[0] if rest else str), type(None) in get_args(annotation)
    return annotation, False


def bounds_of(field: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for item in field.metadata:
        low = getattr(item, "ge", getattr(item, "gt", low))
        high = getattr(item, "le", getattr(item, "lt", high))
    return low, high


def as_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(as_text(v) for v in value)
    return str(value)
