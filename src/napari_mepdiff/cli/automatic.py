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
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    overwrite: Annotated[bool, typer.Option(help="replace the outputs")] = False,
) -> None:
    """From a bare file to a volume: estimate, refine, then sample with that microscope.

    What nobody told is estimated from the patterns and said; then `refine` finds volume and
    microscope together; then `dps` finds the volume again with that microscope and with what
    crystals look like. Each step is kept with its record, and can be run by itself.
    """
    from ..measurement.preparation import Preparation
    from ..session.automatic import depth_for_prior, microscope_known
    from ..session.begin import begin, settings_of
    from ..session.recipe import Opening

    refined = output.with_name(f"{output.stem}_refined.h5")
    microscope = refined.with_name(f"{refined.stem}_microscope.h5")
    check_outputs(output, None, overwrite)
    for path in (refined, microscope):
        free(path, overwrite)
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
    print("1. what the patterns say")
    preparation = _told(preparation, preparation.apply(raw))
    data = preparation.apply(raw)
    depth = depth_for_prior(data.calibration)
    if data.calibration.thickness is None:
        print(
            f"  the thickness is not told: {depth.slices} slices of {depth.slice_thickness:g} Å "
            "(say it with --thickness)"
        )
    known = microscope_known(data)
    if known:
        print(f"2. nothing to refine: {known}")
    else:
        print("2. volume and microscope together")
        thick = None if data.calibration.thickness else depth.slices
        run = begin(
            opening,
            preparation,
            first,
            solver="refine",
            slices=thick,
            device=device,
            made_by="mepdiff auto",
        )
        work_off(run, refined, None, 30.0, overwrite, None)
        if run.control.stopped:
            print("stopped: go on from here with mepdiff reconstruct --microscope")
            raise typer.Exit(1)
    print("3. with what crystals look like")
    run = begin(
        opening,
        preparation,
        last,
        solver="dps",
        slices=depth.slices,
        slice_thickness=depth.slice_thickness,
        together=depth.together,
        microscope=None if known else microscope,
        device=device,
        made_by="mepdiff auto",
    )
    work_off(run, output, None, 30.0, overwrite, None)


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
