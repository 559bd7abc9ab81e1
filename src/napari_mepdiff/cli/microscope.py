"""`mepdiff microscope`: what a reconstruction found of the microscope, in a table or converted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .estimates import value_table
from .terminal import free
from .words import open_data

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..microscope.state import MicroscopeState
    from ..microscope.values import Value


def register(app: typer.Typer) -> None:
    """Add this command to `mepdiff`."""
    app.command()(microscope)


def microscope(
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
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write it for another program")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="of the output: own, ptyrad or py4dstem; own if not given")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """What a reconstruction found of the microscope, beside what was told; or convert it."""
    from ..microscope.files import FORMATS, TITLES, format_of, load_microscope, save_microscope

    wanted = next((f for f in FORMATS if f == (format or "own")), None)
    if wanted is None:
        raise typer.BadParameter(f"--format is {', '.join(FORMATS)}; got {format!r}")
    if format is not None and output is None:
        raise typer.BadParameter("--format goes with -o")
    if data is None and (scan or dataset):
        raise typer.BadParameter("--scan and --dataset go with --data")
    if output is not None:
        free(output, overwrite)
    measurement = None if data is None else open_data(data, scan, dataset)
    kind = format_of(file)
    places = None if measurement is None else measurement.scan_positions()
    state = load_microscope(file, places)
    values = _values(state, measurement)
    head = {"file": str(file), "format": kind, **_frame(state)}
    notes = [str(note) for note in state.provenance.get("notes", ())]
    if as_json:
        told = {**head, "values": [asdict(v) for v in values], "notes": notes}
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        _print(f"{file.name}: {TITLES[kind]}", head, values, notes)
    if output is not None:
        save_microscope(state, output, wanted)
        if not as_json:
            print(f"wrote {output}: {TITLES[wanted]}")


def _values(state: MicroscopeState, data: FourDSTEM | None) -> tuple[Value, ...]:
    """Told by the measurement if there is one, else by the file itself."""
    from ..microscope.values import refined_values

    if data is None:
        from ..microscope.files.found import told_optics

        return refined_values(state, told_optics(state))
    count = data.shape[0] * data.shape[1]
    if len(state.positions) != count:
        raise ValueError(
            f"the refined positions are {len(state.positions)}, the scan has {count}: they are of "
            "another measurement"
        )
    return refined_values(state, data.illumination(), data.scan_positions())


def _frame(state: MicroscopeState) -> dict[str, Any]:
    return {
        "energy": state.energy,
        "modes": len(state.probe),
        "window": list(state.probe.shape[1:]),
        "pixel_size": list(state.pixel_size),
        "positions": len(state.positions),
    }


def _print(title: str, head: dict[str, Any], values: tuple[Value, ...], notes: list[str]) -> None:
    from rich.console import Console

    console = Console()
    (rows, columns), (dy, dx) = head["window"], head["pixel_size"]
    console.print(
        f"{head['modes']} probe mode{'s' * (head['modes'] > 1)} of {rows} × {columns} px of "
        f"{dy:.4g} × {dx:.4g} Å, {head['positions']} positions, {head['energy']:g} kV",
        soft_wrap=True,
    )
    console.print(value_table(title, values, "refined"))
    for note in notes:
        console.print(f"[yellow]note: {note}[/]", soft_wrap=True)
