"""`mepdiff auto`: estimate, refine, sample, one after another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .estimates import estimated
from .options import command_with, given
from .run import check_outputs, work_off
from .terminal import free, parse_settings
from .words import pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from ..measurement.dataset import FourDSTEM
    from ..measurement.preparation import Preparation


def _models() -> list[type[BaseModel]]:
    from ..measurement.preparation import Preparation

    return [Preparation]


def register(app: typer.Typer) -> None:
    """Add the command to `mepdiff`."""
    app.command(cls=command_with(_models))(auto)


def auto(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="4D-STEM data, or the name of a sample")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="volume: .h5, .tif, .zarr, .mrc or .npy; the refined one goes "
            "to NAME_refined.h5, the microscope to NAME_refined_microscope.h5",
        ),
    ],
    elements: Annotated[
        str | None, typer.Option(help="chemical symbols in the specimen, e.g. Sr,Ti,O")
    ] = None,
    thickness: Annotated[
        float | None, typer.Option(help="of the specimen, Å, if the file does not say it")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="setting=value of the last step (dps), as often as needed"),
    ] = None,
    refine: Annotated[
        list[str] | None,
        typer.Option("--refine", help="setting=value of the solver refine, as often as needed"),
    ] = None,
    step: Annotated[str | None, typer.Option(help="scan step, Å: one number, or Y,X")] = None,
    scan: Annotated[
        str | None, typer.Option(help="scan shape NY,NX for a list of patterns")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="which array of the file")] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, help="times the volume is sampled; the microscope is refined again between them"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    overwrite: Annotated[bool, typer.Option(help="replace the outputs")] = False,
) -> None:
    """From a bare file to a volume: estimate, refine, then sample with that microscope.

    What nobody told is estimated from the patterns and said; then `refine` finds volume and
    microscope together; then `dps` finds the volume again with that microscope and with what
    crystals look like. With more rounds the microscope is refined again, from that volume, and the
    volume sampled again. Each step is kept with its record, and can be run by itself.
    """
    from ..measurement.preparation import Preparation
    from ..session.begin import begin, settings_of
    from ..session.choices import Setup
    from ..session.plan import ROUNDS, Asked, files_of, lacking, plan_of
    from ..session.recipe import Opening
    from ..session.saving import beside

    check_outputs(output, None, overwrite)
    fields = parse_settings(set_ or [])
    if elements is not None:
        fields["elements"] = [e.strip() for e in elements.split(",") if e.strip()]
    last = settings_of("dps", fields)
    first = settings_of("refine", parse_settings(refine or [], "--refine"))
    steps = pair(step, "step")
    preparation = Preparation.model_validate(
        {
            **({} if steps is None else {"scan_step_y": steps[0], "scan_step_x": steps[1]}),
            **given(context, Preparation),
        }
    )
    calibration = {} if thickness is None else {"thickness": thickness}
    opening = Opening(
        path=str(file), scan_shape=pair(scan, "scan", int), dataset=dataset, calibration=calibration
    )
    raw = opening.open()
    asked = Asked(first, last, Setup(device=device), rounds or ROUNDS)
    data = preparation.apply(raw)
    if why := lacking(data):
        raise typer.BadParameter(f"{why}: say it by --energy, --step, --semi-angle, --pixel-mrad")
    _free(files_of(plan_of(data, asked).runs, output), overwrite)
    print("1. what the patterns say")
    preparation = _told(preparation, data)
    data = preparation.apply(raw)
    plan = plan_of(data, asked)
    for note in plan.notes:
        print(f"  {note}")
    if data.calibration.thickness is None:
        print("  (say the thickness with --thickness)")
    files = files_of(plan.runs, output)
    _free(files, overwrite)
    microscope: Path | None = None
    before: Path | None = None
    for number, (step_, path) in enumerate(zip(plan.runs, files, strict=True), 2):
        print(f"{number}. {step_.title}")
        run = begin(
            opening,
            preparation,
            step_.settings,
            solver=step_.solver,
            slices=step_.setup.slices,
            slice_thickness=step_.setup.slice_thickness,
            together=step_.setup.together,
            microscope=microscope if step_.microscope == "refined" else None,
            start=before if step_.start == "volume" else None,
            device=device,
            made_by="mepdiff auto",
        )
        work_off(run, path, None, 30.0, overwrite, None)
        if run.control.stopped and path != output:
            print("stopped: go on from here with mepdiff reconstruct --microscope")
            raise typer.Exit(1)
        if step_.solver == "refine":
            microscope = beside(path, "microscope")
        before = path


def _free(files: Sequence[Path], overwrite: bool) -> None:
    """Of all steps but the last: volume, and what is refined beside it."""
    from ..session.saving import beside

    for path in files[:-1]:
        free(path, overwrite)
        free(beside(path, "microscope"), overwrite)


def _told(preparation: Preparation, data: FourDSTEM) -> Preparation:
    """With what nobody told and the patterns say, which is printed."""
    from ..measurement.dataset import DataError
    from ..session.automatic import told_by_patterns

    try:
        found = estimated(data)
    except DataError as error:
        print(f"  nothing estimated: {error}")
        return preparation
    after, notes = told_by_patterns(preparation, data, found)
    for note in notes or ("what was told agrees with the patterns",):
        print(f"  {note}")
    return after
