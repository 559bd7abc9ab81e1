"""What users type, as values: pairs, ranges, zone axes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM


def pair(text: str | None, what: str, kind: type = float) -> tuple[Any, Any] | None:
    """One or two numbers, like 0.5, 0.5,0.4 or 26x26."""
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    try:
        values = tuple(kind(p) for p in parts)
    except ValueError:
        raise typer.BadParameter(
            f"{what}: give one or two numbers, like 0.5 or 0.5,0.4; got {text!r}"
        ) from None
    if len(values) == 1:
        values = values * 2
    if len(values) != 2:
        raise typer.BadParameter(f"{what}: give one or two numbers; got {text!r}")
    return values


def part(text: str | None, what: str) -> slice:
    """A range like 2:6."""
    if text is None:
        return slice(None)
    try:
        low, high = (int(p) if p else None for p in text.split(":"))
    except ValueError:
        raise typer.BadParameter(f"{what}: give a range like 2:6; got {text!r}") from None
    return slice(low, high)


def zone(text: str) -> Any:
    """a, b, c or three indices."""
    if text in ("a", "b", "c"):
        return text
    try:
        values = tuple(float(p) for p in text.replace(" ", ",").split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise typer.BadParameter(
            f"zone axis: give a, b, c or three indices like 1,1,0; got {text!r}"
        )
    return values


def open_data(file: Path, scan: str | None = None, dataset: str | None = None) -> FourDSTEM:
    """A measurement by its path, or a sample by its name."""
    from ..session.recipe import Opening

    return Opening(path=str(file), scan_shape=pair(scan, "scan", int), dataset=dataset).open()
