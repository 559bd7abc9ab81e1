"""`mepdiff diagnose`, and what `mepdiff reconstruct` says of a misfit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import free

if TYPE_CHECKING:
    from ..reconstruction.diagnosis import Diagnosis, Remedy
    from ..session.runs import RunRecord


def register(app: typer.Typer) -> None:
    """Add the command to `mepdiff`."""
    app.command()(diagnose)


def diagnose(
    result: Annotated[Path, typer.Argument(help="a volume of napari-mepdiff, with its record")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write the pictures: .png, .pdf or .svg")
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write words and numbers")] = None,
    data: Annotated[
        Path | None, typer.Option(help="the measurement, if it is no longer where it was")
    ] = None,
    microscope: Annotated[
        Path | None,
        typer.Option(help="refined probe and positions; NAME_microscope.h5 beside it is found"),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace what is written")] = False,
) -> None:
    """Say what the misfit of a reconstruction is made of, and which option removes it."""
    import json

    from ..session.diagnosing import diagnose_file

    for place in (output, json_):
        if place is not None:
            free(place, overwrite)
    found, remedies = diagnose_file(result, data, microscope)
    print_diagnosis(found, remedies)
    if json_ is not None:
        text = json.dumps(
            {**found.as_dict(), "remedies": [vars(r) for r in remedies]},
            indent=1,
            ensure_ascii=False,
        )
        json_.write_text(text + "\n")
        print(f"wrote {json_}")
    if output is not None:
        from ..evaluation.diagnosis_figure import diagnosis_figure

        print(f"wrote {diagnosis_figure(found, output, result.name)}")


def print_diagnosis(found: Diagnosis, remedies: tuple[Remedy, ...]) -> None:
    """The words, a table of the causes, and the options that remove them."""
    from rich.console import Console
    from rich.table import Table

    print(found.summary)
    if found.causes:
        table = Table(show_lines=True)
        table.add_column("cause")
        table.add_column("share", justify="right")
        table.add_column("what it means")
        for cause in found.causes:
            table.add_row(cause.name, f"{100 * cause.strength:.0f} %", cause.words)
        Console(width=120).print(table)
    if found.where:
        print(found.where)
    print_options(remedies)


def print_options(remedies: tuple[Remedy, ...]) -> None:
    """What to add to `mepdiff reconstruct`."""
    for remedy in remedies:
        if remedy.option:
            print(f"add {remedy.option}   ({remedy.title[:1].lower()}{remedy.title[1:]})")


def print_end(run: RunRecord) -> None:
    """After a run whose verdict was printed: the options that help."""
    from ..session.diagnosing import absolute

    found = run.diagnosis
    if found is None:
        return
    shape = None
    if any("centre" in r.preparation for r in found.remedies):
        shape = run.recipe.opening.open().detector_shape
    print_options(tuple(absolute(r, run.preparation, shape) for r in found.remedies))
