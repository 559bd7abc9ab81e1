"""`mepdiff train` and `mepdiff prior …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import free, interruptible, parse_settings, progress

if TYPE_CHECKING:
    from .prior.training import Report

prior_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                        help="The diffusion prior: look at it, judge it, draw from it.")


def register(app: typer.Typer) -> None:
    """Add these commands to `mepdiff`."""
    app.command()(train)
    app.add_typer(prior_app, name="prior")


def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")] = Path("training"),
    preset: Annotated[str, typer.Option(help="compact or paper")] = "compact",
    structures: Annotated[
        Path | None, typer.Option(help="table of structures (parquet), CIF file or folder of CIFs; else the bundled table")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="end after so long")] = None,
    steps: Annotated[int | None, typer.Option(help="end when the run has made so many")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in the folder")] = False,
    start: Annotated[
        str | None, typer.Option(help="begin with the weights of this prior: bundled, a .safetensors file or a training folder")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="setting=value, as often as needed")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all of them if not given")] = None,
    every: Annotated[float, typer.Option(help="seconds between checkpoints")] = 120.0,
    export: Annotated[Path | None, typer.Option(help="write the averaged weights here at the end (.safetensors)")] = None,
) -> None:
    """Train a prior on crystal structures. Ctrl-C keeps what there is; --resume goes on, after a kill too."""
    import torch

    from .prior.structures import load_structures
    from .prior.trainer import TrainSettings, load_checkpoint
    from .prior.training import train as run
    from .prior.unet import PRESETS
    from .reconstruction.stream import Control

    if threads:
        torch.set_num_threads(threads)
    if preset not in PRESETS:
        raise typer.BadParameter(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    if minutes is None and steps is None:
        print("training until Ctrl-C; give --minutes or --steps for an end")
    given = parse_settings(set_ or [])
    settings: TrainSettings | None
    if resume and (output / "checkpoint.pt").exists():
        kept = TrainSettings.model_validate_json(load_checkpoint(output / "checkpoint.pt")["settings"])
        settings = TrainSettings.model_validate({**kept.model_dump(), **given})
    elif resume:
        print(f"there is no run in {output} yet: beginning one")
        resume, settings = False, TrainSettings.model_validate({"network": PRESETS[preset], **given})
    else:
        settings = TrainSettings.model_validate({"network": PRESETS[preset], **given})
    everything = load_structures(structures)
    for problem in everything.problems[:5]:
        print(f"left out: {problem}")
    if len(everything.problems) > 5:
        print(f"left out: {len(everything.problems) - 5} more")
    training = everything.part("train")
    print(f"{len(training):,} structures to train on ({len(everything) - len(training):,} held out), network {preset}")
    accelerator = _accelerator(device)
    control, report, shown = Control(), None, 0.0
    main = accelerator is None or accelerator.is_main_process
    with interruptible(control):
        for report in run(settings, training, output, minutes=minutes, steps=steps, resume=resume, start=start, device=device,
                          every=every, accelerator=accelerator, stop=lambda: control.stopped):
            for note in report.notes:
                print(note, flush=True)
            if main and (report.seconds - shown >= 20 or report.step <= 2):
                print(_line(report), flush=True)
                shown = report.seconds
    if report is None:
        print("nothing to do: the run is at its end already")
    elif main:
        print(_line(report))
        print(f"{output / 'checkpoint.pt'}: step {report.step}, {report.samples:,} volumes, {report.seconds / 3600:.2f} h; "
              f"curves in {output / 'loss.png'}, numbers in {output / 'log.csv'}")
    if export is not None and main:
        from .prior.model import Prior

        Prior.load(output / "checkpoint.pt").save(export)
        print(f"wrote {export}")


@prior_app.command()
def info(
    prior: Annotated[str, typer.Argument(help="name of a bundled prior, a .safetensors file or a training folder")] = "compact",
) -> None:
    """What a prior was trained on, and for how long."""
    import json

    from .prior.model import Prior

    model = Prior.load(prior)
    c = model.network.config
    voxels = " × ".join(f"{v:g}" for v in model.voxel_size)
    levels = ", ".join(str(v.channels) for v in c.levels)
    count = model.network.parameters_count / 1e6
    print(f"{prior}: {count:.2f} M parameters (levels {levels}; patch {c.patch}), voxels {voxels} Å, phase at {model.energy:g} kV")
    print(json.dumps(model.info, indent=1))


@prior_app.command()
def sample(
    output: Annotated[Path, typer.Option("-o", "--output", help="volume: .h5, .tif, .zarr, .mrc or .npy; numbered if several")],
    prior: Annotated[str, typer.Option(help="bundled prior, .safetensors file or training folder")] = "compact",
    condition: Annotated[Path | None, typer.Option(help="volume whose depth sum (or depth trend, with --trust) is known")] = None,
    trust: Annotated[
        float | None, typer.Option(help="expected depth correlation of the condition, 0 to 1; else only its depth sum is used")
    ] = None,
    count: Annotated[int, typer.Option(help="samples")] = 1,
    steps: Annotated[int, typer.Option(help="steps of the sampler")] = 100,
    slices: Annotated[int, typer.Option(help="slices of an unconditional sample")] = 8,
    size: Annotated[int, typer.Option(help="lateral voxels of an unconditional sample")] = 64,
    seed: Annotated[int, typer.Option(help="of the noise")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Draw crystals from the prior, or crystals that fit a known depth sum or an ordinary solver's volume."""
    paths = [output] if count == 1 else [output.with_name(f"{output.stem}-{n + 1}{output.suffix}") for n in range(count)]
    for path in paths:
        free(path, overwrite)
    from .export.volumes import format_of, load_volume, save_volume
    from .physics.optics import interaction_parameter
    from .prior.condition import Condition
    from .prior.model import Prior
    from .prior.sampling import sample as draw
    from .specimen.volume import Volume

    format_of(output)
    model = Prior.load(prior, device=device)
    known, energy, factor = None, model.energy, 1.0
    if condition is not None:
        volume = load_volume(condition).to_unit("rad")
        if any(abs(a / b - 1) > 0.02 for a, b in zip(volume.voxel_size, model.voxel_size, strict=True)):
            raise ValueError(f"{condition.name} has voxels of {volume.voxel_size} Å, the prior knows {model.voxel_size} Å: "
                             "resample it")
        energy = volume.energy or model.energy
        factor = interaction_parameter(model.energy) / interaction_parameter(energy)
        array = volume.array * factor
        known = Condition.from_sum(array.sum(axis=0), array.shape[0]) if trust is None else Condition.from_volume(array, trust)
    with progress("sampling") as advance:
        volumes = draw(model, (slices, size, size), count=count, steps=steps, condition=known, seed=seed, progress=advance)
    for path, array in zip(paths, volumes.cpu().numpy(), strict=True):
        made = Volume(array / factor, model.voxel_size, energy=energy, provenance={
            "made_by": "mepdiff prior sample", "prior": prior, "steps": steps, "seed": seed, "trust": trust,
            "condition": condition and condition.name})
        print(f"wrote {save_volume(made, path, overwrite=overwrite)[0]}")


@prior_app.command()
def evaluate(
    prior: Annotated[str, typer.Argument(help="bundled prior, .safetensors file or training folder")] = "compact",
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the report")] = Path("prior_report"),
    structures: Annotated[
        Path | None, typer.Option(help="table or CIFs with the held-out crystals; else the bundled table")
    ] = None,
    part: Annotated[str, typer.Option(help="validation or test")] = "validation",
    crystals: Annotated[int | None, typer.Option(help="volumes for the losses; all 300 if not given")] = None,
    samples: Annotated[int, typer.Option(help="unconditional samples")] = 12,
    depth: Annotated[int, typer.Option(help="volumes for the depth test")] = 12,
    steps: Annotated[int, typer.Option(help="steps of the sampler")] = 100,
    losses_only: Annotated[bool, typer.Option(help="losses by λ, no samples")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(help="of noise and samples")] = 0,
) -> None:
    """Judge a prior on held-out crystals: losses by λ, samples, their statistics, depth from a known depth sum."""
    from .evaluation.prior import Plan, evaluate_prior
    from .prior.model import Prior
    from .prior.structures import load_structures

    if part not in ("validation", "test"):
        raise typer.BadParameter(f"the part is validation or test; got {part!r}")
    plan = Plan(part=part, crystals=crystals, samples=0 if losses_only else samples, depth=0 if losses_only else depth,  # type: ignore[arg-type]
                steps=steps, seed=seed)
    with progress("judging") as advance:
        report = evaluate_prior(Prior.load(prior, device=device), load_structures(structures), output, plan, prior, advance)
    print(report.read_text())
    print(f"wrote {report}")


def _line(report: Report) -> str:
    bands = "  ".join(f"λ {name.replace('..', '…')}: {value:.2f}" for name, value in report.bands.items() if value == value)
    left = "" if report.left is None else f", {_duration(report.left)} left"
    return (f"step {report.step}, {report.samples:,} volumes, {report.rate:.1f}/s, loss {report.loss:.4f}{left}\n    v-loss by "
            f"band: {bands}")


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60):02d} s"


def _accelerator(device: str) -> Any:
    """An Accelerator where several processes were launched, else None."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError("training in several processes needs accelerate: pip install napari-mepdiff[train]") from None
    return Accelerator(cpu=device == "cpu")
