"""`mepdiff …`: parse, call, print. Everything heavy is imported by the command that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import free, parse_settings, print_scores, progress

if TYPE_CHECKING:
    from .measurement.dataset import FourDSTEM

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Multislice electron ptychography: simulate, look, reconstruct, judge, export.",
)


def main() -> None:
    """Entry point: errors of the user's making are a line, not a traceback."""
    import sys

    try:
        app(standalone_mode=True)
    except (ValueError, OSError, KeyError, MemoryError, ArithmeticError) as error:
        if "--debug" in sys.argv:
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"mepdiff: {text}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("mepdiff: stopped", file=sys.stderr)
        raise SystemExit(130) from None


def _pair(text: str | None, what: str, kind: type = float) -> tuple[Any, Any] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    try:
        values = tuple(kind(p) for p in parts)
    except ValueError:
        raise typer.BadParameter(f"{what}: give one or two numbers, like 0.5 or 0.5,0.4; got {text!r}") from None
    if len(values) == 1:
        values = values * 2
    if len(values) != 2:
        raise typer.BadParameter(f"{what}: give one or two numbers; got {text!r}")
    return values


def _range(text: str | None, what: str) -> slice:
    if text is None:
        return slice(None)
    try:
        low, high = (int(p) if p else None for p in text.split(":"))
    except ValueError:
        raise typer.BadParameter(f"{what}: give a range like 2:6; got {text!r}") from None
    return slice(low, high)


def _zone(text: str) -> Any:
    if text in ("a", "b", "c"):
        return text
    try:
        values = tuple(float(p) for p in text.replace(" ", ",").split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise typer.BadParameter(f"zone axis: give a, b, c or three indices like 1,1,0; got {text!r}")
    return values


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def simulate(
    crystal: Annotated[str, typer.Argument(help="CIF file, or TABLE.parquet::ID")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write")],
    zone_axis: Annotated[str, typer.Option(help="a, b, c or indices like 1,1,0")] = "c",
    rotation: Annotated[float, typer.Option(help="in-plane rotation, degrees")] = 0.0,
    geometry: Annotated[str, typer.Option(help="paper (periodic) or extended")] = "paper",
    slices: Annotated[int, typer.Option(help="slices of the specimen")] = 8,
    slice_thickness: Annotated[float, typer.Option(help="Å")] = 1.6,
    pixel: Annotated[float, typer.Option(help="lateral voxel, Å")] = 0.2,
    scan: Annotated[str, typer.Option(help="positions, NY,NX")] = "26,26",
    step: Annotated[str, typer.Option(help="scan step, Å")] = "0.512",
    detector: Annotated[int, typer.Option(help="detector pixels a side")] = 128,
    energy: Annotated[float, typer.Option(help="kV")] = 300.0,
    semi_angle: Annotated[float, typer.Option(help="mrad")] = 21.4,
    overfocus: Annotated[float, typer.Option(help="C10, Å; positive is overfocus")] = 200.0,
    cs: Annotated[float, typer.Option(help="C30, Å")] = 5000.0,
    dose: Annotated[float, typer.Option(help="e/Å²; 0 for noise-free")] = 1e6,
    vacancies: Annotated[float, typer.Option(help="fraction of atoms left out")] = 0.01,
    members: Annotated[int, typer.Option(help="frozen-phonon and incoherence configurations")] = 1,
    vibration: Annotated[float, typer.Option(help="rms displacement, Å")] = 0.0,
    focal_spread: Annotated[float, typer.Option(help="rms, Å")] = 0.0,
    source_size: Annotated[float, typer.Option(help="rms, Å")] = 0.0,
    seed: Annotated[int, typer.Option(help="of noise and vacancies")] = 0,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Record a crystal: 4D-STEM data with ground truth, by abTEM."""
    free(output, overwrite)
    from .measurement.readers.hdf5 import save
    from .measurement.simulate import Conditions
    from .measurement.simulate import simulate as record
    from .physics.optics import Optics
    from .physics.scan import Raster
    from .specimen.crystal import from_table, load_crystal

    if "::" in crystal:
        table, identifier = crystal.rsplit("::", 1)
        cell = from_table(table, identifier)
    else:
        cell = load_crystal(crystal)
        cell.info["source"] = Path(crystal).name
    if geometry not in ("paper", "extended"):
        raise typer.BadParameter(f"geometry is paper or extended; got {geometry!r}")
    shape = _pair(scan, "scan", int)
    assert shape is not None
    conditions = Conditions(
        optics=Optics(energy=energy, semi_angle=semi_angle, overfocus=overfocus, C30=cs),
        scan=Raster(shape=shape, step=_pair(step, "step")),  # type: ignore[arg-type]
        geometry=geometry, slices=slices, voxel_size=(slice_thickness, pixel, pixel), detector=detector,  # type: ignore
        field=(detector // 2, detector // 2), dose=dose or None, vacancies=vacancies, members=members,
        vibration=vibration, focal_spread=focal_spread, source_size=source_size, seed=seed, zone_axis=_zone(zone_axis),
        rotation=rotation,
    )
    with progress("simulating") as advance:
        data = record(cell, conditions, advance)
    save(data, output)
    print(f"{output}: {data.shape[0]} × {data.shape[1]} patterns of {data.shape[2]} × {data.shape[3]} px, "
          f"{output.stat().st_size / 1e6:.1f} MB, with ground truth {data.truth.shape if data.truth else None}")


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="4D-STEM data or a volume")],
    scan: Annotated[str | None, typer.Option(help="scan shape NY,NX for a list of patterns")] = None,
    dataset: Annotated[str | None, typer.Option(help="which array of the file")] = None,
    quick: Annotated[bool, typer.Option(help="do not read the patterns")] = False,
    image: Annotated[Path | None, typer.Option(help="write PACBED, bright and dark field to this picture")] = None,
) -> None:
    """What a file holds, its calibration, and what is wrong with it."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not scan and not dataset and (volume := _as_volume(file)) is not None:
        v = volume
        console.print(f"[bold]{file.name}[/]: volume {v.shape}, voxels {' × '.join(f'{n:g}' for n in v.voxel_size)} Å, "
                      f"{v.array.min():.3f} to {v.array.max():.3f} {v.unit}")
        return
    data = _open(file, scan, dataset)
    table = Table(show_header=False, box=None)
    c = data.calibration

    def unit(value: Any, text: str) -> str:
        return "[yellow]not known[/]" if value is None else text.format(value)

    rows = [
        ("format", data.provenance["source"]["format"]),
        ("scan", f"{data.shape[0]} × {data.shape[1]} positions"),
        ("detector", f"{data.shape[2]} × {data.shape[3]} px, {data.data.dtype}, {data.nbytes / 1e6:,.1f} MB"),
        ("energy", unit(c.energy, "{:g} kV")),
        ("semi-angle", unit(c.semi_angle, "{:g} mrad")),
        ("detector pixel", unit(c.pixel_size, "{:.5g} Å⁻¹") + (f" ({c.pixel_mrad:.4g} mrad)" if c.pixel_mrad else "")),
        ("scan step", unit(c.scan_step and max(c.scan_step), "{:g} Å")),
        ("dose", unit(c.dose, "{:g} e/Å²")),
        ("specimen beyond the scan", data.boundary),
        ("ground truth", "none" if data.truth is None else f"{data.truth.shape} voxels"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if quick:
        return
    from .measurement.validation import validate
    from .measurement.virtual import find_disk, summary

    seen = summary(data)
    disk = find_disk(seen.pacbed) if seen.pacbed.max() > 0 else None
    console.print(f"counts: {seen.total.mean():,.1f} a pattern ({seen.total.min():,.0f} to {seen.total.max():,.0f}), "
                  f"pixels {seen.minimum:g} to {seen.maximum:g}")
    if disk:
        console.print(f"bright disk: radius {disk.radius:.1f} px at ({disk.centre[0]:.1f}, {disk.centre[1]:.1f})")
    found = validate(data, seen)
    for finding in found:
        console.print(f"[{'red' if finding.level == 'error' else 'yellow'}]{finding}[/]", soft_wrap=True)
    if not found:
        console.print("[green]nothing wrong was found[/]")
    if image is not None:
        from .evaluation.figures import data_figure

        print(f"wrote {data_figure(data, image, seen)}")


@app.command()
def reconstruct(
    file: Annotated[Path, typer.Argument(help="4D-STEM data, or the name of a sample")],
    output: Annotated[Path, typer.Option("-o", "--output", help="volume: .h5, .tif, .zarr, .mrc or .npy")],
    solver: Annotated[str, typer.Option(help="dps, adam, lbfgs, ptyrad-adam, ptyrad-lbfgs, atomic, refine")] = "dps",
    set_: Annotated[list[str] | None, typer.Option("--set", help="setting=value, as often as needed")] = None,
    elements: Annotated[str | None, typer.Option(help="chemical symbols in the specimen, e.g. Sr,Ti,O (dps, atomic)")] = None,
    steer: Annotated[list[str] | None, typer.Option(
        "--steer", help="STEP:setting=value, STEP:back=EARLIER or STEP:stop, in the order they shall happen")] = None,
    slices: Annotated[int | None, typer.Option(help="slices; that of the truth, or 8")] = None,
    slice_thickness: Annotated[float | None, typer.Option(help="Å; that of the truth, or 1.6")] = None,
    energy: Annotated[float | None, typer.Option(help="kV, if the file does not say")] = None,
    semi_angle: Annotated[float | None, typer.Option(help="mrad")] = None,
    overfocus: Annotated[float | None, typer.Option(help="C10, Å; positive is overfocus")] = None,
    cs: Annotated[float | None, typer.Option(help="C30, Å")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="detector pixel, Å⁻¹")] = None,
    pixel_mrad: Annotated[float | None, typer.Option(help="detector pixel, mrad")] = None,
    step: Annotated[str | None, typer.Option(help="scan step, Å")] = None,
    scan_rotation: Annotated[float | None, typer.Option(help="scan against detector, degrees")] = None,
    scan: Annotated[str | None, typer.Option(help="scan shape NY,NX for a list of patterns")] = None,
    dataset: Annotated[str | None, typer.Option(help="which array of the file")] = None,
    probe: Annotated[Path | None, typer.Option(help="probe: complex .npy or a PtyRAD result")] = None,
    modes: Annotated[int, typer.Option(help="incoherent probe modes")] = 1,
    start: Annotated[Path | None, typer.Option(help="volume to begin from")] = None,
    prepare: Annotated[list[str] | None, typer.Option(
        help="orientation and size: transpose=true, flip_y=true, flip_x=true, centre_y=64, centre_x=63, crop=96, bin=2")] = None,
    preview: Annotated[bool, typer.Option(help="less work: a first look within seconds, not a result")] = False,
    film: Annotated[Path | None, typer.Option(help="write the frames of the run here, .gif or .mp4")] = None,
    seed: Annotated[int, typer.Option(help="of random batches")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    checkpoint: Annotated[Path | None, typer.Option(help="keep the state here, and go on from it")] = None,
    resume: Annotated[bool, typer.Option(help="keep the state beside the output, and go on from it")] = False,
    every: Annotated[float, typer.Option(help="seconds between checkpoints")] = 30.0,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Turn 4D-STEM data into a volume. Ctrl-C keeps what there is; --resume goes on where a run was killed."""
    free(output, overwrite)
    from .export.volumes import format_of
    from .recipe import Recipe, parse_steering, run_recipe
    from .reconstruction.registry import SOLVERS

    format_of(output)
    if solver not in SOLVERS:
        raise typer.BadParameter(f"no solver {solver!r}; there are {', '.join(SOLVERS)}")
    fields = {"seed": seed, **parse_settings(set_ or [])}
    if elements is not None:
        if "elements" not in SOLVERS[solver].settings_type().model_fields:
            raise typer.BadParameter(f"--elements: {solver} does not ask for elements; dps and atomic do")
        fields["elements"] = [e.strip() for e in elements.split(",") if e.strip()]
    settings = SOLVERS[solver].default(**fields)
    if preview:
        from .reconstruction.preview import NOTICE
        from .reconstruction.preview import preview as less

        settings = less(solver, settings)
        print(NOTICE)
    if film is not None:
        free(film, overwrite)
    recipe = Recipe(
        file=str(file), solver=solver, slices=slices, slice_thickness=slice_thickness,
        calibration={k: v for k, v in {
            "energy": energy, "semi_angle": semi_angle, "pixel_size": pixel_size, "rotation": scan_rotation,
            "scan_step": _pair(step, "step"),
        }.items() if v is not None},
        optics={k: v for k, v in {"overfocus": overfocus, "C30": cs}.items() if v is not None},
        pixel_mrad=pixel_mrad, scan=_pair(scan, "scan", int), dataset=dataset, probe=None if probe is None else str(probe),
        modes=modes, start=None if start is None else str(start), device=device, preparation=parse_settings(prepare or []),
        preview=preview,
    )
    keep = checkpoint or (output.with_name(output.name + ".checkpoint") if resume else None)
    changes, stop = parse_steering(steer or [])
    run_recipe(recipe, settings, output, changes, stop, keep, every, overwrite, film)


@app.command()
def replay(
    provenance: Annotated[Path, typer.Argument(help="a volume that mepdiff reconstruct wrote, or the .json beside it")],
    output: Annotated[Path, typer.Option("-o", "--output", help="volume: .h5, .tif, .zarr, .mrc or .npy")],
    data: Annotated[Path | None, typer.Option(help="the measurement, if it is no longer where it was")] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Run a reconstruction again, every change made while it ran included: the same volume on the same machine, bit for bit."""
    free(output, overwrite)
    from .export.volumes import format_of
    from .recipe import read_provenance, run_recipe
    from .reconstruction.registry import SOLVERS

    format_of(output)
    recipe, fields, changes, steps, complete = read_provenance(provenance)
    if data is not None:
        recipe = recipe.model_copy(update={"file": str(data)})
    settings = SOLVERS[recipe.solver].settings_type().model_validate(fields)
    run_recipe(recipe, settings, output, changes, None if complete else steps, None, 30.0, overwrite)


@app.command()
def evaluate(
    reconstruction: Annotated[Path, typer.Argument(help="volume")],
    truth: Annotated[Path, typer.Argument(help="volume, or 4D-STEM data with ground truth")],
    data: Annotated[Path | None, typer.Option(help="measurement, for the misfit; the truth's file if it is one")] = None,
    figure: Annotated[Path | None, typer.Option(help="write a picture of both")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the numbers")] = None,
) -> None:
    """Metrics of a reconstruction against ground truth."""
    import json

    from .evaluation.judge import judge
    from .export.volumes import load_volume

    volume = load_volume(reconstruction)
    source = _as_data(truth)
    target = source.truth if source is not None and source.truth is not None else load_volume(truth)
    measured = _open(data) if data is not None else source
    scores = judge(volume, target, measured)
    print_scores({reconstruction.name: scores})
    if json_ is not None:
        json_.write_text(json.dumps(scores.as_dict(), indent=1) + "\n")
    if figure is not None:
        from .evaluation.figures import compare_figure

        print(f"wrote {compare_figure({'truth': target, reconstruction.stem: volume}, figure, {reconstruction.stem: scores})}")


@app.command()
def export(
    volume: Annotated[Path, typer.Argument(help="volume in any format that can be read")],
    output: Annotated[Path, typer.Argument(help=".tif, .h5, .zarr, .mrc or .npy")],
    slices: Annotated[str | None, typer.Option(help="range of slices, e.g. 2:6")] = None,
    y: Annotated[str | None, typer.Option(help="range of rows (voxels)")] = None,
    x: Annotated[str | None, typer.Option(help="range of columns (voxels)")] = None,
    unit: Annotated[str | None, typer.Option(help="rad, or VA for projected potential in V·Å")] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Write a volume, or a part of it, in another format."""
    from .export.volumes import load_volume, save_volume

    units: dict[str | None, Any] = {None: None, "rad": "rad", "VA": "V·Å", "V·Å": "V·Å"}
    if unit not in units:
        raise typer.BadParameter(f"unit is rad or VA; got {unit!r}")
    written = save_volume(load_volume(volume), output, slices=_range(slices, "slices"), y=_range(y, "y"),
                          x=_range(x, "x"), unit=units[unit], overwrite=overwrite)
    for path in written:
        print(path)


# ---- small parts ------------------------------------------------------------------------------------------------
def _open(file: Path, scan: str | None = None, dataset: str | None = None) -> FourDSTEM:
    from .recipe import open_data

    return open_data(file, scan=_pair(scan, "scan", int), dataset=dataset)


def _as_volume(file: Path) -> Any:
    from .export.volumes import load_volume

    if file.suffix.lower() in (".h5", ".hdf5") and file.exists():
        import h5py

        from .files import guard_hdf5

        try:
            guard_hdf5(file)
            with h5py.File(file, "r") as handle:
                if handle.attrs.get("format") not in (b"mepdiff-volume", "mepdiff-volume") and "optimizable_tensors" not in handle:
                    return None
        except (OSError, ValueError):
            return None
        return load_volume(file)
    if file.suffix.lower() in (".tif", ".tiff", ".mrc"):
        return load_volume(file)
    return None


def _as_data(file: Path) -> FourDSTEM | None:
    from .measurement.dataset import DataError
    from .measurement.samples import NAMES

    if file.suffix.lower() not in (".h5", ".hdf5") and str(file) not in NAMES:
        return None
    try:
        return _open(file)
    except (DataError, OSError):
        return None


from . import cli_prior  # noqa: E402  (its commands register themselves)

cli_prior.register(app)

if __name__ == "__main__":
    main()
