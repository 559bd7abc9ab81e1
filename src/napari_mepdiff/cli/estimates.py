"""Told and estimated values of the microscope in one table, or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from ..measurement.dataset import FourDSTEM
    from ..microscope.estimate import Estimate
    from ..microscope.values import Value
    from ..session.microscope_table import Row


def print_estimates(data: FourDSTEM, as_json: bool = False) -> None:
    """Estimate, with progress on the terminal (Ctrl-C ends it), and print.

    Raises
    ------
    DataError
        If the patterns cannot be used.
    """
    found = estimated(data)
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
        return
    _print(found)


def estimated(data: FourDSTEM) -> Estimate:
    """The estimate, with progress on the terminal.

    Raises
    ------
    DataError
        If the patterns cannot be used.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..microscope.estimate import estimate

    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("estimating", total=1.0)
        return estimate(data, lambda done: bar.update(task, completed=done))


def _print(found: Estimate) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(value_table("The microscope, by the patterns", found.values, "estimated"))
    if found.orientations:
        table = Table(title="Detector against scan", title_justify="left")
        for head in ("detector", "rotation", "C10 (Å)", "rest of curl", "verdict"):
            table.add_column(head)
        for o in found.orientations:
            other = o.other
            table.add_row(
                o.name,
                "–" if o.rotation is None else f"{o.rotation:.1f}° or {other.rotation:.1f}°",
                "–" if o.C10 is None else f"{o.C10:.4g} or {other.C10:.4g}",
                "–" if o.curl is None else f"{o.curl:.2f}",
                o.verdict,
            )
        console.print(table)
    for note in found.notes:
        console.print(f"[yellow]note: {note}[/]", soft_wrap=True)


def value_table(title: str, values: Sequence[Value], found: str) -> Table:
    """Told and found values side by side.

    Parameters
    ----------
    title : str
    values : sequence of Value
    found : str
        How the values were found, as the head of their column.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for head in ("", "told", found, "unit", "verdict"):
        table.add_column(head, justify="right" if head in ("told", found) else "left")
    for v in values:
        told = "–" if v.told is None else f"{v.told:.5g}"
        table.add_row(v.name, told, _with_error(v.value, v.error), v.unit, v.verdict)
    return table


def side_by_side(title: str, rows: Sequence[Row]) -> Table:
    """Told, estimated and refined values side by side, block by block.

    Parameters
    ----------
    title : str
    rows : sequence of Row
        Of :func:`~napari_mepdiff.session.microscope_table.microscope_table`.
    """
    from rich.table import Table

    from ..session.microscope_table import TITLES, as_words

    table = Table(title=title, title_justify="left")
    numbers = ("told", "estimated", "refined")
    for head in ("", *numbers, "unit", "verdict"):
        table.add_column(head, justify="right" if head in numbers else "left")
    block = None
    for r in rows:
        if r.block != block:
            block = r.block
            table.add_section()
            table.add_row(f"[bold]{TITLES[block]}[/]")
        found = as_words(r.estimated, r.estimated_error), as_words(r.refined, r.refined_error)
        table.add_row(r.name, as_words(r.told), *found, r.unit, r.verdict)
    return table


def _with_error(value: float | None, error: float | None) -> str:
    """A number to the digits that its error leaves: 120.8 ± 1.3."""
    if value is None:
        return "not known"
    if not error:
        return f"{value:.5g}"
    from math import floor, log10

    digits = max(0, 1 - floor(log10(error)))
    return f"{value:.{min(digits, 9)}f} ± {error:.{min(digits, 9)}f}"
