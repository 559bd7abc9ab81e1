"""`mepdiff microscope`: what a reconstruction found of the microscope, beside what is told and what
the patterns say, in a table; or converted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .estimates import estimated, side_by_side, value_table
from .options import command_with, given
from .terminal import free
from .words import open_data, pair

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

    from ..measurement.dataset import FourDSTEM
    from ..microscope.state import MicroscopeState
    from ..microscope.values import Value
    from ..session.microscope_table import Row


def _models() -> list[type[BaseModel]]:
    from ..measurement.preparation import Preparation

    return [Preparation]


def register(app: typer.Typer) -> None:
    """Add this command to `mepdiff`."""
    app.command(cls=command_with(_models))(microscope)


def microscope(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="NAME_microscope.h5 of an earlier run, a result of PtyRAD, or of py4DSTEM's "
            "ptychography"
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="the measurement: what was told, and its scan")
    ] = None,
    scan: Annotated[
        str | None, typer.Option(help="with --data: scan shape NY,NX for a list of patterns")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="with --data: which array of the file")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="with --data: scan step, Å: one number, or Y,X")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="with --data: what its patterns alone say, too")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write it for another program")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="of the output: own, ptyrad or py4dstem; own if not given")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """What a reconstruction found of the microscope, beside what was told; or convert it.

    The options of the preparation go with --data: tell there what was told to the reconstruction.
    """
    from ..microscope.files import FORMATS, TITLES, format_of, load_microscope, save_microscope

    wanted = next((f for f in FORMATS if f == (format or "own")), None)
    if wanted is None:
        raise typer.BadParameter(f"--format is {', '.join(FORMATS)}; got {format!r}")
    if format is not None and output is None:
        raise typer.BadParameter("--format goes with -o")
    told = given(context, _models()[0])
    if data is None and (scan or dataset or step or estimate or told):
        raise typer.BadParameter(
            "--scan, --dataset, --step, --estimate and what is told of a measurement go with --data"
        )
    if output is not None:
        free(output, overwrite)
    measurement = None
    if data is not None:
        measurement = _prepared(open_data(data, scan, dataset), told, step)
    kind = format_of(file)
    places = None if measurement is None else measurement.scan_positions()
    state = load_microscope(file, places)
    if measurement is not None:
        _require_same(state, measurement)
    head = {"file": str(file), "format": kind, **_frame(state)}
    notes = [str(note) for note in state.provenance.get("notes", ())]
    title = f"{file.name}: {TITLES[kind]}"
    if estimate and measurement is not None:
        rows, more = _rows(state, measurement)
        notes += more
        values, table = [_plain(row) for row in rows], side_by_side(title, rows)
    else:
        found = _values(state, measurement)
        values, table = [asdict(v) for v in found], value_table(title, found, "refined")
    if as_json:
        out = {**head, "values": values, "notes": notes}
        print(json.dumps(out, ensure_ascii=False, indent=2))
    else:
        _print(head, table, notes)
    if output is not None:
        save_microscope(state, output, wanted)
        if not as_json:
            print(f"wrote {output}: {TITLES[wanted]}")


def _prepared(data: FourDSTEM, told: dict[str, Any], step: str | None) -> FourDSTEM:
    from ..measurement.preparation import Preparation

    steps = pair(step, "step")
    if steps is not None:
        told = {**told, "scan_step_y": steps[0], "scan_step_x": steps[1]}
    return Preparation.model_validate(told).apply(data)


def _require_same(state: MicroscopeState, data: FourDSTEM) -> None:
    count = data.shape[0] * data.shape[1]
    if len(state.positions) != count:
        raise ValueError(
            f"the refined positions are {len(state.positions)}, the scan has {count}: they are of "
            "another measurement"
        )


def _values(state: MicroscopeState, data: FourDSTEM | None) -> tuple[Value, ...]:
    """Told by the measurement if there is one, else by the file itself."""
    from ..microscope.values import refined_values

    if data is None:
        from ..microscope.files.found import told_optics

        return refined_values(state, told_optics(state))
    return refined_values(state, data.illumination(), data.scan_positions())


def _rows(state: MicroscopeState, data: FourDSTEM) -> tuple[tuple[Row, ...], list[str]]:
    """Told, estimated and refined; and what the estimate notes."""
    from ..reconstruction.registry import SOLVERS
    from ..session.microscope_table import microscope_table

    found = estimated(data)
    settings: Any = SOLVERS["refine"].default()
    return microscope_table(data, found, state, settings), list(found.notes)


def _plain(row: Row) -> dict[str, Any]:
    """For JSON; what the next run may move is not asked here."""
    return {name: value for name, value in asdict(row).items() if name != "free"}


def _frame(state: MicroscopeState) -> dict[str, Any]:
    return {
        "energy": state.energy,
        "modes": len(state.probe),
        "window": list(state.probe.shape[1:]),
        "pixel_size": list(state.pixel_size),
        "positions": len(state.positions),
    }


def _print(head: dict[str, Any], table: Table, notes: list[str]) -> None:
    from rich.console import Console

    console = Console()
    (rows, columns), (dy, dx) = head["window"], head["pixel_size"]
    console.print(
        f"{head['modes']} probe mode{'s' * (head['modes'] > 1)} of {rows} × {columns} px of "
        f"{dy:.4g} × {dx:.4g} Å, {head['positions']} positions, {head['energy']:g} kV",
        soft_wrap=True,
    )
    console.print(table)
    for note in notes:
        console.print(f"[yellow]note: {note}[/]", soft_wrap=True)
