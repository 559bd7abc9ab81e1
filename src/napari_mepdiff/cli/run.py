"""`mepdiff reconstruct` and `mepdiff replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .diagnose import print_end
from .options import command_with, given
from .terminal import free, interruptible, parse_settings, progress
from .words import pair

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..reconstruction.frame import Frame
    from ..session.runs import RunRecord


def _models() -> list[type[BaseModel]]:
    from ..measurement.preparation import Preparation

    return [Preparation]


def register(app: typer.Typer) -> None:
    """Add these commands to `mepdiff`."""
    app.command(cls=command_with(_models))(reconstruct)
    app.command()(replay)


def reconstruct(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="4D-STEM data, or the name of a sample")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="volume: .h5, .tif, .zarr, .mrc or .npy")
    ],
    solver: Annotated[
        str, typer.Option(help="dps, adam, lbfgs, ptyrad-adam, ptyrad-lbfgs, atomic, refine")
    ] = "dps",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="setting=value of the solver, as often as needed"),
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option(help="chemical symbols in the specimen, e.g. Sr,Ti,O (dps, atomic)"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of random batches; 0")] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            help="STEP:setting=value, STEP:back=EARLIER or STEP:stop, in the order they shall "
            "happen"
        ),
    ] = None,
    slices: Annotated[int | None, typer.Option(help="as the known thickness asks, or 8")] = None,
    slice_thickness: Annotated[
        float | None, typer.Option(help="Å; as the known thickness asks, or 1.6")
    ] = None,
    together: Annotated[
        int, typer.Option(help="slices that the physics takes as one, of thick specimens")
    ] = 1,
    modes: Annotated[int, typer.Option(help="incoherent probe modes")] = 1,
    step: Annotated[str | None, typer.Option(help="scan step, Å: one number, or Y,X")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="detector pixel, Å⁻¹")] = None,
    prepare: Annotated[
        list[str] | None,
        typer.Option(help="field=value of the preparation: the options below as one word"),
    ] = None,
    scan: Annotated[
        str | None, typer.Option(help="scan shape NY,NX for a list of patterns")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="which array of the file")] = None,
    probe: Annotated[
        Path | None, typer.Option(help="probe: complex .npy or a PtyRAD result")
    ] = None,
    microscope: Annotated[
        Path | None,
        typer.Option(
            help="probe and positions that an earlier run refined (NAME_microscope.h5), or a "
            "result of PtyRAD or of py4DSTEM's ptychography"
        ),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="volume to begin from")] = None,
    preview: Annotated[
        bool, typer.Option(help="less work: a first look within seconds, not a result")
    ] = False,
    film: Annotated[
        Path | None, typer.Option(help="write the frames of the run here, .gif or .mp4")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    checkpoint: Annotated[
        Path | None, typer.Option(help="keep the state here, and go on from it")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="keep the state beside the output, and go on from it")
    ] = False,
    every: Annotated[float, typer.Option(help="seconds between checkpoints")] = 30.0,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Turn 4D-STEM data into a volume. Ctrl-C keeps what there is; --resume goes on after it."""
    check_outputs(output, film, overwrite)
    from ..measurement.preparation import Preparation
    from ..session.begin import begin, settings_of, steering
    from ..session.recipe import Opening

    fields = parse_settings(set_ or [])
    if seed is not None:
        fields["seed"] = seed
    if elements is not None:
        fields["elements"] = [e.strip() for e in elements.split(",") if e.strip()]
    settings = settings_of(solver, fields, preview)
    if preview:
        from ..reconstruction.preview import NOTICE

        print(NOTICE)
    control = steering(steer or [], settings)
    steps = pair(step, "step")
    preparation = Preparation.model_validate(
        {
            **({} if steps is None else {"scan_step_y": steps[0], "scan_step_x": steps[1]}),
            **given(context, Preparation),
            **parse_settings(prepare or [], "--prepare"),
        }
    )
    opening = Opening(
        path=str(file),
        scan_shape=pair(scan, "scan", int),
        dataset=dataset,
        calibration={} if pixel_size is None else {"pixel_size": pixel_size},
    )
    run = begin(
        opening,
        preparation,
        settings,
        solver=solver,
        slices=slices,
        slice_thickness=slice_thickness,
        together=together,
        modes=modes,
        probe=probe,
        microscope=microscope,
        start=start,
        device=device,
        preview=preview,
        control=control,
        keep_frames=film is not None,
        made_by="mepdiff reconstruct",
    )
    keep = checkpoint or (output.with_name(output.name + ".checkpoint") if resume else None)
    work_off(run, output, keep, every, overwrite, film)


def replay(
    record: Annotated[
        Path,
        typer.Argument(
            help="a volume of napari-mepdiff, the .json beside it, or the run.json of a lost run"
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="volume: .h5, .tif, .zarr, .mrc or .npy")
    ],
    data: Annotated[
        Path | None, typer.Option(help="the measurement, if it is no longer where it was")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Run a reconstruction again with every change that was made: the same volume, bit by bit."""
    check_outputs(output, None, overwrite)
    from ..session.replay import play, read_record

    written = read_record(record)
    for caveat in written.caveats():
        print(f"the last digits may differ: {caveat}")
    run = play(written, folder=record.resolve().parent, path=data, made_by="mepdiff replay")
    work_off(run, output, None, 30.0, overwrite, None)


def check_outputs(output: Path, film: Path | None, overwrite: bool) -> None:
    """What cannot be written at the end is said before the beginning."""
    free(output, overwrite)
    if film is not None:
        free(film, overwrite)
    from ..export.volumes import format_of

    format_of(output)


def work_off(
    run: RunRecord,
    output: Path,
    checkpoint: Path | None,
    every: float,
    overwrite: bool,
    film: Path | None,
) -> None:
    """Run at the terminal with progress, and save what there is, whatever ends it."""
    from ..reconstruction.registry import SOLVERS
    from ..session.diagnosing import at_end
    from ..session.saving import beside, save_somewhere, save_spreads
    from ..session.work import work

    if run.solver == "dps":
        for name in ("std", "agreement"):
            free(beside(output, name), overwrite)
    if run.recipe.start is not None and run.recipe.start.file is None:
        free(beside(output.with_suffix(".h5"), "start"), overwrite)
    if run.solver == "refine":
        free(beside(output.with_suffix(".h5"), "microscope"), overwrite)
    title = SOLVERS[run.solver].title
    teller = _Teller(run, title)
    with interruptible(run.control) as guard:
        with progress(title) as teller.advance:
            failure = work(
                run,
                checkpoint=checkpoint,
                every=every,
                watch=teller.frame,
                last_act=lambda: at_end(run, print),
            )
        guard.saving = True
        teller.notes()
        if run.frame is None:
            raise failure or ValueError("stopped before the first step: there is nothing to save")
        written = save_somewhere(run, output, overwrite=overwrite)
        written += teller.attempt(
            "the spreads", lambda: save_spreads(run, written[0], overwrite=overwrite)
        )
        if film is not None:
            written += teller.attempt("the film", lambda: _film(run, film, overwrite))
        teller.notes()
    teller.end(written)
    if failure is not None:
        raise failure


def _film(run: RunRecord, path: Path, overwrite: bool) -> list[Path]:
    from ..export.film import save_film

    assert run.problem is not None
    labels = [f"step {r['step']} of {r['total']}" for r in run.frames.kept]
    voxels = run.problem.voxel_size
    frames: Any = run.frames.array()
    made = save_film(frames, path, voxel_size=voxels, overwrite=overwrite, labels=labels)
    return [made]


class _Teller:
    """Prints what happens in a run."""

    def __init__(self, run: RunRecord, title: str) -> None:
        self.run, self.title = run, title
        self.advance: Any = None
        self._told = 0

    def frame(self, frame: Frame) -> None:
        problem = self.run.problem
        if len(self.run.frames.records) == 1 and problem is not None:
            voxels = " × ".join(f"{v:.3g}" for v in problem.voxel_size)
            count, height, width = problem.patterns.shape
            for finding in problem.findings:
                print(f"warning: {finding}")
            print(
                f"{count} patterns of {height} × {width} px → volume {problem.shape}, "
                f"voxels {voxels} Å, "
                f"{self.title}"
            )
        stage = frame.info.stage or f"misfit {frame.loss:.4f} × shot noise"
        self.advance(frame.step, frame.total, stage)
        self.notes()

    def notes(self) -> None:
        notes = [*self.run.control.notes, *self.run.frames.notes]
        for note in notes[self._told :]:
            print(note)
        self._told = len(notes)

    def attempt(self, what: str, save: Any) -> list[Path]:
        """What belongs to the volume must not cost it."""
        try:
            return list(save())
        except (OSError, ValueError) as error:
            print(f"{what} could not be written: {error}")
            return []

    def end(self, written: list[Path]) -> None:
        from ..reconstruction.script import Script

        run, outcome = self.run, self.run.outcome
        assert outcome is not None
        if isinstance(run.control, Script) and run.control.unplayed:
            print(f"{run.control.unplayed} changes were not reached")
        state = "" if outcome.complete else "partial volume, "
        files = ", ".join(str(p) for p in written if p.suffix != ".json")
        print(
            f"{state}step {outcome.steps} of {outcome.planned}, misfit {outcome.loss:.4f} × shot "
            f"noise, {outcome.seconds:.1f} s → {files}"
        )
        if outcome.verdict:
            print(f"warning: {outcome.verdict}")
        if run.diagnosis is not None:
            print_end(run)
