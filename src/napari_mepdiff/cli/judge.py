"""`mepdiff evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import print_scores
from .words import open_data

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM


def register(app: typer.Typer) -> None:
    """Add the command to `mepdiff`."""
    app.command()(evaluate)


def evaluate(
    reconstruction: Annotated[Path, typer.Argument(help="volume")],
    truth: Annotated[Path, typer.Argument(help="volume, or 4D-STEM data with ground truth")],
    data: Annotated[
        Path | None, typer.Option(help="measurement, for the misfit; the truth's file if it is one")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="write a picture of both")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the numbers")] = None,
) -> None:
    """Metrics of a reconstruction against ground truth."""
    import json

    from ..evaluation.judge import judge
    from ..evaluation.metrics import TITLES
    from ..export.volumes import load_volume

    volume = load_volume(reconstruction)
    source, reason = _as_data(truth)
    target = source.truth if source is not None and source.truth is not None else load_volume(truth)
    measured = source
    if data is not None:
        try:
            measured, reason = open_data(data), ""
        except ValueError as error:  # damaged: the volume can still be scored
            measured, reason = None, str(error)
    scores = judge(volume, target, measured, no_data=reason)
    print_scores({reconstruction.name: scores})
    for name, why in scores.missing.items():
        print(f"no {TITLES[name]}: {why}")
    if json_ is not None:
        numbers = {**scores.as_dict(), "missing": dict(scores.missing)}
        json_.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    if figure is not None:
        from ..evaluation.figures import compare_figure

        pictures = {"truth": target, reconstruction.stem: volume}
        print(f"wrote {compare_figure(pictures, figure, {reconstruction.stem: scores})}")


def _as_data(file: Path) -> tuple[FourDSTEM | None, str]:
    """The measurement in a file; else None, and why if it should be one."""
    from ..base.hdf5 import kind_of
    from ..measurement.dataset import DataError
    from ..measurement.samples import NAMES

    if str(file) in NAMES:
        return open_data(file), ""
    if file.suffix.lower() not in (".h5", ".hdf5") or not file.exists():
        return None, ""
    try:
        if kind_of(file) in ("volume", "ptyrad"):
            return None, ""
        return open_data(file), ""
    except (DataError, OSError, ValueError) as error:
        return None, str(error)
