"""The instrument of `mepdiff simulate`: read, drawn or by options; what it did in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..measurement.instrument import Instrument


def real_instrument(
    file: Path | None, errors: int | None, options: dict[str, Any]
) -> Instrument | None:
    """The instrument that a file or a seed gives, with what the options change; None for none.

    Raises
    ------
    BadParameter
        If both a file and a seed are given, or a value is impossible.
    """
    from ..measurement.instrument import Instrument

    given = {name: value for name, value in options.items() if value is not None}
    if file is not None and errors is not None:
        raise typer.BadParameter("give --instrument or --errors, not both")
    if file is None and errors is None and not given:
        return None
    start: dict[str, Any] = {}
    if file is not None:
        try:
            start = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{file} cannot be read as JSON: {error}") from error
        if not isinstance(start, dict):
            raise typer.BadParameter(f"{file} must hold one JSON object of instrument errors")
    elif errors is not None:
        start = Instrument.drawn(errors).model_dump()
    return checked(start | given)


def checked(values: dict[str, Any]) -> Instrument:
    """An instrument of these values.

    Raises
    ------
    BadParameter
        If one is impossible; the message names it.
    """
    from pydantic import ValidationError

    from ..measurement.instrument import Instrument

    try:
        return Instrument.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise typer.BadParameter(f"the instrument is impossible: {wrong}") from error


def told_and_true(data: FourDSTEM) -> list[str]:
    """Lines that say what the file tells, and what was true."""
    known, told = data.truth_instrument, data.optics
    assert known is not None
    assert told is not None
    assert data.positions is not None
    true, i = known["optics"], known["instrument"]
    away = known["positions"] - data.positions
    off = float((away**2).mean() ** 0.5)
    told_thickness = data.calibration.thickness
    lines = [
        "told, and true:",
        f"  overfocus   {told.overfocus:g} Å, {true['overfocus']:g} Å",
        f"  semi-angle  {told.semi_angle:g} mrad, {true['semi_angle']:g} mrad"
        + (" with a soft edge" if i["soft_aperture"] else ""),
        f"  thickness   {told_thickness:g} Å, {known['thickness']:g} Å",
        f"  positions   a regular raster, {off:.2f} Å (rms per axis) away from it",
    ]
    silent = [
        f"{name} {true[key]:.3g} Å"
        for name, key in (("astigmatism", "C12"), ("coma", "C21"), ("threefold", "C23"))
        if true[key] != getattr(told, key)
    ]
    silent += [
        f"{name} {i[key]:.3g} {unit}"
        for name, key, unit in (
            ("source", "source_size", "Å"),
            ("focal spread", "focal_spread", "Å"),
            ("vibration", "vibration", "Å"),
            ("blur", "blur", "px"),
            ("background", "background", "electrons per pixel"),
        )
        if i[key]
    ]
    if any(i["tilt"]):
        silent.append(f"tilt {i['tilt'][0]:.3g}, {i['tilt'][1]:.3g} mrad (y, x)")
    if i["gain"] != 1:
        silent.append(f"gain {i['gain']:.3g}")
    if i["dead_pixels"] or i["hot_pixels"]:
        marked = "marked" if i["masked"] else "unmarked"
        silent.append(f"{i['dead_pixels']} dead and {i['hot_pixels']} hot pixels, {marked}")
    if silent:
        lines.append("  not told    " + ", ".join(silent))
    return lines
