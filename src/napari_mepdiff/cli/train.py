"""`mepdiff train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.extras import require
from .terminal import interruptible, parse_settings

if TYPE_CHECKING:
    from ..training.run import Report


def register(app: typer.Typer) -> None:
    """Add this command to `mepdiff`."""
    app.command()(train)


def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")] = Path(
        "training"
    ),
    preset: Annotated[str, typer.Option(help="compact or paper")] = "compact",
    structures: Annotated[
        Path | None,
        typer.Option(
            help="table of structures (parquet), CIF file or folder of CIFs; else the bundled table"
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="end after so long")] = None,
    steps: Annotated[int | None, typer.Option(help="end when the run has made so many")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in the folder")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="begin with the weights of this prior: bundled, a .safetensors file "
            "or a training folder"
        ),
    ] = None,
    elements: Annotated[
        bool, typer.Option("--elements", help="a new network that can be told the elements")
    ] = False,
    answer: Annotated[
        bool, typer.Option("--answer", help="a new network that can be shown what the data say")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="setting=value, as often as needed")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; all of them if not given")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="processes that draw crystals ahead, for a GPU; 0: none")
    ] = 0,
    every: Annotated[float, typer.Option(help="seconds between checkpoints")] = 120.0,
    export: Annotated[
        Path | None, typer.Option(help="write the averaged weights here at the end (.safetensors)")
    ] = None,
) -> None:
    """Train a prior on crystal structures. Ctrl-C keeps what there is; --resume goes on,
    after a kill too.
    """
    import torch

    from ..prior.network import PRESETS
    from ..reconstruction.control import Control
    from ..specimen.structures import load_structures
    from ..training.checkpoint import load_checkpoint
    from ..training.run import train as run
    from ..training.settings import TrainSettings

    if threads:
        torch.set_num_threads(threads)
    if preset not in PRESETS:
        raise typer.BadParameter(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    if minutes is None and steps is None:
        print("training until Ctrl-C; give --minutes or --steps for an end")
    given = parse_settings(set_ or [])
    network = PRESETS[preset].model_copy(update={"elements": elements, "answer": answer})
    settings: TrainSettings | None
    if resume and (output / "checkpoint.pt").exists():
        kept = TrainSettings.model_validate_json(
            load_checkpoint(output / "checkpoint.pt")["settings"]
        )
        settings = TrainSettings.model_validate({**kept.model_dump(), **given})
    elif resume:
        print(f"there is no run in {output} yet: beginning one")
        resume, settings = (False, TrainSettings.model_validate({"network": network, **given}))
    else:
        settings = TrainSettings.model_validate({"network": network, **given})
    everything = load_structures(structures)
    for problem in everything.problems[:5]:
        print(f"left out: {problem}")
    if len(everything.problems) > 5:
        print(f"left out: {len(everything.problems) - 5} more")
    training = everything.part("train")
    print(
        f"{len(training):,} structures to train on "
        f"({len(everything) - len(training):,} held out), network {preset}"
    )
    accelerator = _accelerator(device)
    control, report, shown = Control(), None, 0.0
    main = accelerator is None or accelerator.is_main_process
    with interruptible(control):
        for report in run(
            settings,
            training,
            output,
            minutes=minutes,
            steps=steps,
            resume=resume,
            start=start,
            device=device,
            every=every,
            workers=workers,
            accelerator=accelerator,
            stop=lambda: control.stopped,
        ):
            for note in report.notes:
                print(note, flush=True)
            if main and (report.seconds - shown >= 20 or report.step <= 2):
                print(_line(report), flush=True)
                shown = report.seconds
    if report is None:
        print("nothing to do: the run is at its end already")
    elif main:
        print(_line(report))
        print(
            f"{output / 'checkpoint.pt'}: step {report.step}, {report.samples:,} "
            f"volumes, {report.seconds / 3600:.2f} h; "
            f"curves in {output / 'loss.png'}, numbers in {output / 'log.csv'}"
        )
    if export is not None and main:
        from ..prior.model import Prior

        Prior.load(output / "checkpoint.pt").save(export)
        print(f"wrote {export}")


def _line(report: Report) -> str:
    bands = "  ".join(
        f"λ {name.replace('..', '…')}: {value:.2f}"
        for name, value in report.bands.items()
        if value == value
    )
    left = "" if report.left is None else f", {_duration(report.left)} left"
    return (
        f"step {report.step}, {report.samples:,} volumes, {report.rate:.1f}/s, "
        f"loss {report.loss:.4f}{left}\n    v-loss by "
        f"band: {bands}"
    )


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {int(seconds % 60):02d} s"
    )


def _accelerator(device: str) -> Any:
    """An Accelerator where several processes were launched, else None."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    accelerate = require("accelerate", "train", "Training in several processes")
    return accelerate.Accelerator(cpu=device == "cpu")
