"""`mepdiff simulate`, `info` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .instrument import checked, real_instrument, told_and_true
from .terminal import free, progress
from .words import open_data, pair, part, zone

if TYPE_CHECKING:
    from ..specimen.volume import Volume


def register(app: typer.Typer) -> None:
    """Add these commands to `mepdiff`."""
    for command in (simulate, info, export):
        app.command()(command)


def simulate(
    crystal: Annotated[str, typer.Argument(help="CIF file, or TABLE::ID (.npz, .parquet)")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write")],
    zone_axis: Annotated[str, typer.Option(help="a, b, c or indices like 1,1,0")] = "c",
    rotation: Annotated[float, typer.Option(help="in-plane rotation, degrees")] = 0.0,
    geometry: Annotated[
        str | None, typer.Option(help="paper (periodic) or extended; extended with an instrument")
    ] = None,
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
    instrument: Annotated[
        Path | None, typer.Option(help="JSON file with the instrument's errors")
    ] = None,
    errors: Annotated[
        int | None, typer.Option(help="draw the instrument's errors at random with this seed")
    ] = None,
    told_overfocus: Annotated[
        float | None, typer.Option(help="C10 in the logbook, Å; --overfocus is the true one")
    ] = None,
    told_thickness: Annotated[float | None, typer.Option(help="Å, in the logbook")] = None,
    soft_edge: Annotated[
        bool, typer.Option("--soft-edge", help="aperture with a soft edge")
    ] = False,
    jitter: Annotated[float | None, typer.Option(help="rms error of positions, Å")] = None,
    tilt: Annotated[str | None, typer.Option(help="of the beam, mrad, Y,X")] = None,
    fine_slice: Annotated[float | None, typer.Option(help="slices as simulated, Å, ≤ 2")] = None,
    background: Annotated[float | None, typer.Option(help="electrons per pixel")] = None,
    gain: Annotated[float | None, typer.Option(help="number in the file per electron")] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Record a crystal: 4D-STEM data with ground truth, by abTEM."""
    free(output, overwrite)
    from ..measurement.formats.own import save
    from ..measurement.simulate import Conditions
    from ..measurement.simulate import simulate as record
    from ..physics.optics import Optics
    from ..physics.scan import Raster
    from ..specimen.cif import load_crystal
    from ..specimen.structures import load_structures

    if "::" in crystal:
        table, identifier = crystal.rsplit("::", 1)
        cell = load_structures(table).atoms(identifier)
    else:
        cell = load_crystal(crystal)
        cell.info["source"] = Path(crystal).name
    own = {
        "jitter": jitter,
        "tilt": pair(tilt, "tilt"),
        "fine_slice": fine_slice,
        "background": background,
        "gain": gain,
        "soft_aperture": soft_edge or None,
        "overfocus_error": None if told_overfocus is None else told_overfocus - overfocus,
        "overfocus_rounding": None if told_overfocus is None else 0.0,
        "thickness_error": None
        if told_thickness is None
        else told_thickness - slices * slice_thickness,
    }
    device = real_instrument(instrument, errors, own)
    if device is not None:
        # with an instrument these are its own
        moved = {"vibration": vibration, "focal_spread": focal_spread, "source_size": source_size}
        changed: dict[str, Any] = {name: value for name, value in moved.items() if value}
        if members > 1:
            changed["configurations"] = members
        device = checked(device.model_dump() | changed)
        vibration = focal_spread = source_size = 0.0
        members = 1
    geometry = geometry or ("paper" if device is None else "extended")
    if geometry not in ("paper", "extended"):
        raise typer.BadParameter(f"geometry is paper or extended; got {geometry!r}")
    shape = pair(scan, "scan", int)
    assert shape is not None
    conditions = Conditions(
        optics=Optics(energy=energy, semi_angle=semi_angle, overfocus=overfocus, C30=cs),
        scan=Raster(shape=shape, step=pair(step, "step")),  # type: ignore[arg-type]
        geometry=geometry,
        slices=slices,
        voxel_size=(slice_thickness, pixel, pixel),
        detector=detector,  # type: ignore
        field=(detector // 2, detector // 2),
        dose=dose or None,
        vacancies=vacancies,
        members=members,
        vibration=vibration,
        focal_spread=focal_spread,
        source_size=source_size,
        seed=seed,
        zone_axis=zone(zone_axis),
        rotation=rotation,
        instrument=device,
    )
    with progress("simulating") as advance:
        data = record(cell, conditions, advance)
    save(data, output)
    print(
        f"{output}: {data.shape[0]} × {data.shape[1]} patterns of {data.shape[2]} "
        f"× {data.shape[3]} px, "
        f"{output.stat().st_size / 1e6:.1f} MB, with ground truth "
        f"{data.truth.shape if data.truth else None}"
    )
    if data.truth_instrument is not None:
        print("\n".join(told_and_true(data)))


def info(
    file: Annotated[Path, typer.Argument(help="4D-STEM data or a volume")],
    scan: Annotated[
        str | None, typer.Option(help="scan shape NY,NX for a list of patterns")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="which array of the file")] = None,
    quick: Annotated[bool, typer.Option(help="do not read the patterns")] = False,
    image: Annotated[
        Path | None, typer.Option(help="write PACBED, bright and dark field to this picture")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="estimate disk, gain, rotation and defocus")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="with --estimate: print the estimates as JSON only")
    ] = False,
) -> None:
    """What a file holds, its calibration, and what is wrong with it."""
    if as_json and not estimate:
        raise typer.BadParameter("--json goes with --estimate")
    if as_json:
        from .estimates import print_estimates

        print_estimates(open_data(file, scan, dataset), as_json=True)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not scan and not dataset and (volume := as_volume(file)) is not None:
        v = volume
        console.print(
            f"[bold]{file.name}[/]: volume {v.shape}, "
            f"voxels {' × '.join(f'{n:g}' for n in v.voxel_size)} Å, "
            f"{v.array.min():.3f} to {v.array.max():.3f} {v.unit}"
        )
        return
    data = open_data(file, scan, dataset)
    table = Table(show_header=False, box=None)
    c = data.calibration

    def unit(value: Any, text: str) -> str:
        return "[yellow]not known[/]" if value is None else text.format(value)

    rows = [
        ("format", data.provenance["source"]["format"]),
        ("scan", f"{data.shape[0]} × {data.shape[1]} positions"),
        (
            "detector",
            f"{data.shape[2]} × {data.shape[3]} px, {data.data.dtype}, {data.nbytes / 1e6:,.1f} MB",
        ),
        ("energy", unit(c.energy, "{:g} kV")),
        ("semi-angle", unit(c.semi_angle, "{:g} mrad")),
        (
            "detector pixel",
            unit(c.pixel_size, "{:.5g} Å⁻¹")
            + (f" ({c.pixel_mrad:.4g} mrad)" if c.pixel_mrad else ""),
        ),
        ("scan step", unit(c.scan_step and max(c.scan_step), "{:g} Å")),
        ("dose", unit(c.dose, "{:g} e/Å²")),
        ("specimen beyond the scan", data.boundary),
        ("ground truth", "none" if data.truth is None else f"{data.truth.shape} voxels"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if quick and not estimate:
        return
    from ..measurement.checks import validate
    from ..measurement.detectors import find_disk, summary

    seen = summary(data)
    disk = find_disk(seen.pacbed) if seen.pacbed.max() > 0 else None
    console.print(
        f"counts: {seen.total.mean():,.1f} a pattern ({seen.total.min():,.0f} to "
        f"{seen.total.max():,.0f}), "
        f"pixels {seen.minimum:g} to {seen.maximum:g}"
    )
    if disk:
        console.print(
            f"bright disk: radius {disk.radius:.1f} px at ({disk.centre[0]:.1f}, "
            f"{disk.centre[1]:.1f})"
        )
    found = validate(data, seen)
    for finding in found:
        console.print(
            f"[{'red' if finding.level == 'error' else 'yellow'}]{finding}[/]", soft_wrap=True
        )
    if not found:
        console.print("[green]nothing wrong was found[/]")
    if estimate:
        from .estimates import print_estimates

        print_estimates(data)
    if image is not None:
        from ..evaluation.figures import data_figure

        print(f"wrote {data_figure(data, image, seen)}")


def export(
    volume: Annotated[Path, typer.Argument(help="volume in any format that can be read")],
    output: Annotated[Path, typer.Argument(help=".tif, .h5, .zarr, .mrc or .npy")],
    slices: Annotated[str | None, typer.Option(help="range of slices, e.g. 2:6")] = None,
    y: Annotated[str | None, typer.Option(help="range of rows (voxels)")] = None,
    x: Annotated[str | None, typer.Option(help="range of columns (voxels)")] = None,
    unit: Annotated[
        str | None, typer.Option(help="rad, or VA for projected potential in V·Å")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace the output")] = False,
) -> None:
    """Write a volume, or a part of it, in another format."""
    from ..export.volumes import load_volume, save_volume

    units: dict[str | None, Any] = {None: None, "rad": "rad", "VA": "V·Å", "V·Å": "V·Å"}
    if unit not in units:
        raise typer.BadParameter(f"unit is rad or VA; got {unit!r}")
    written = save_volume(
        load_volume(volume),
        output,
        slices=part(slices, "slices"),
        y=part(y, "y"),
        x=part(x, "x"),
        unit=units[unit],
        overwrite=overwrite,
    )
    for path in written:
        print(path)


def as_volume(file: Path) -> Volume | None:
    """The volume in a file; None where it holds something else."""
    from ..export.volumes import load_volume

    if file.suffix.lower() in (".h5", ".hdf5") and file.exists():
        from ..base.hdf5 import kind_of

        try:
            if kind_of(file) not in ("volume", "ptyrad"):
                return None
        except (OSError, ValueError):
            return None
        return load_volume(file)
    if file.suffix.lower() in (".tif", ".tiff", ".mrc"):
        return load_volume(file)
    return None
