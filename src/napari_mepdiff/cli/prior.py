"""`mepdiff prior …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import free, progress

prior_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The diffusion prior: look at it, judge it, draw from it.",
)


def register(app: typer.Typer) -> None:
    """Add these commands to `mepdiff`."""
    app.add_typer(prior_app, name="prior")


@prior_app.command()
def info(
    prior: Annotated[
        str,
        typer.Argument(help="name of a bundled prior, a .safetensors file or a training folder"),
    ] = "compact",
) -> None:
    """What a prior was trained on, and for how long."""
    import json

    from ..prior.model import Prior

    model = Prior.load(prior)
    c = model.network.config
    voxels = " × ".join(f"{v:g}" for v in model.voxel_size)
    levels = ", ".join(str(v.channels) for v in c.levels)
    count = model.network.parameters_count / 1e6
    print(
        f"{prior}: {count:.2f} M parameters (levels {levels}; patch {c.patch}), "
        f"voxels {voxels} Å, phase at {model.energy:g} kV"
    )
    print(json.dumps(model.info, indent=1))


@prior_app.command()
def sample(
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="volume: .h5, .tif, .zarr, .mrc or .npy; numbered if several"
        ),
    ],
    prior: Annotated[
        str, typer.Option(help="bundled prior, .safetensors file or training folder")
    ] = "compact",
    condition: Annotated[
        Path | None,
        typer.Option(help="volume whose depth sum (or depth trend, with --trust) is known"),
    ] = None,
    trust: Annotated[
        float | None,
        typer.Option(
            help="expected depth correlation of the condition, 0 to 1; else only its "
            "depth sum is used"
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="samples")] = 1,
    steps: Annotated[int, typer.Option(help="steps of the sampler")] = 100,
    slices: Annotated[int, typer.Option(help="slices of an unconditional sample")] = 8,
    size: Annotated[int, typer.Option(help="lateral voxels of an unconditional sample")] = 64,
    seed: Annotated[int, typer.Option(help="of the noise")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Draw crystals from the prior, or crystals that fit a known depth sum or an ordinary
    solver's volume.
    """
    paths = (
        [output]
        if count == 1
        else [output.with_name(f"{output.stem}-{n + 1}{output.suffix}") for n in range(count)]
    )
    for path in paths:
        free(path, overwrite)
    from ..export.volumes import format_of, load_volume, save_volume
    from ..physics.optics import interaction_parameter
    from ..prior.condition import Condition
    from ..prior.model import Prior
    from ..prior.sampler import sample as draw
    from ..prior.self_test import prove
    from ..specimen.volume import Volume

    format_of(output)
    prove(device)
    model = Prior.load(prior, device=device)
    known, energy, factor = None, model.energy, 1.0
    if condition is not None:
        volume = load_volume(condition).to_unit("rad")
        if any(
            abs(a / b - 1) > 0.02 for a, b in zip(volume.voxel_size, model.voxel_size, strict=True)
        ):
            raise ValueError(
                f"{condition.name} has voxels of {volume.voxel_size} Å, the prior "
                f"knows {model.voxel_size} Å: "
                "resample it"
            )
        energy = volume.energy or model.energy
        factor = interaction_parameter(model.energy) / interaction_parameter(energy)
        array = volume.array * factor
        known = (
            Condition.from_sum(array.sum(axis=0), array.shape[0])
            if trust is None
            else Condition.from_volume(array, trust)
        )
    with progress("sampling") as advance:
        volumes = draw(
            model,
            (slices, size, size),
            count=count,
            steps=steps,
            condition=known,
            seed=seed,
            progress=advance,
        )
    for path, array in zip(paths, volumes.cpu().numpy(), strict=True):
        made = Volume(
            array / factor,
            model.voxel_size,
            energy=energy,
            provenance={
                "made_by": "mepdiff prior sample",
                "prior": prior,
                "steps": steps,
                "seed": seed,
                "trust": trust,
                "condition": condition and condition.name,
            },
        )
        print(f"wrote {save_volume(made, path, overwrite=overwrite)[0]}")


@prior_app.command()
def evaluate(
    prior: Annotated[
        str, typer.Argument(help="bundled prior, .safetensors file or training folder")
    ] = "compact",
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the report")] = Path(
        "prior_report"
    ),
    structures: Annotated[
        Path | None,
        typer.Option(help="table or CIFs with the held-out crystals; else the bundled table"),
    ] = None,
    part: Annotated[str, typer.Option(help="validation or test")] = "validation",
    crystals: Annotated[
        int | None, typer.Option(help="volumes for the losses; all 300 if not given")
    ] = None,
    samples: Annotated[int, typer.Option(help="unconditional samples")] = 12,
    depth: Annotated[int, typer.Option(help="volumes for the depth test")] = 12,
    steps: Annotated[int, typer.Option(help="steps of the sampler")] = 100,
    losses_only: Annotated[bool, typer.Option(help="losses by λ, no samples")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(help="of noise and samples")] = 0,
) -> None:
    """Judge a prior on held-out crystals: losses by λ, samples, their statistics, depth from
    a known depth sum.
    """
    from ..evaluation.prior import Plan, evaluate_prior
    from ..prior.model import Prior
    from ..prior.self_test import prove
    from ..specimen.structures import load_structures

    if part not in ("validation", "test"):
        raise typer.BadParameter(f"the part is validation or test; got {part!r}")
    plan = Plan(
        part="test" if part == "test" else "validation",
        crystals=crystals,
        samples=0 if losses_only else samples,
        depth=0 if losses_only else depth,
        steps=steps,
        seed=seed,
    )
    prove(device)
    with progress("judging") as advance:
        report = evaluate_prior(
            Prior.load(prior, device=device),
            load_structures(structures),
            output,
            plan,
            prior,
            advance,
        )
    print(report.read_text())
    print(f"wrote {report}")
