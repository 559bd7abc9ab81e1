"""Choices: everything the user can set, as one frozen record that is remembered and undone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..measurement.preparation import Preparation
from ..reconstruction.registry import SOLVERS, Solver


class Setup(BaseModel):
    """What is run, where, on how many slices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    solver: str = Field(
        "dps",
        title="Solver",
        description="diffusion posterior sampling, or an ordinary one to compare with",
    )
    slices: int | None = Field(
        None,
        ge=1,
        le=512,
        title="Slices",
        description="of the volume; empty: 8, or as the known thickness of the specimen asks",
    )
    slice_thickness: float | None = Field(
        None,
        gt=0,
        le=1000,
        title="Slice thickness",
        json_schema_extra={"unit": "Å"},
        description="empty: 1.6 Å, or as the known thickness of the specimen asks",
    )
    together: int = Field(
        1,
        ge=1,
        le=64,
        title="Slices together",
        description="that the physics takes as one; for thick specimens, up to about 10 Å at a "
        "time: so many times less work, while the prior still sees thin slices",
    )
    modes: int = Field(
        1, ge=1, le=16, title="Probe modes", description="incoherent modes of the probe"
    )
    microscope: str = Field(
        "",
        title="Refined microscope",
        description="a file with probe and positions that an earlier run refined on the same scan",
    )
    device: str = Field("cpu", title="Device", description="where the work is done")
    start: str = Field(
        "", title="Start from", description="a volume layer to begin from; empty: from nothing"
    )
    preview: bool = Field(
        False,
        title="Preview",
        description="a first look within seconds on a machine without a GPU: every "
        "second "
        "detector pixel, a part of the positions, few steps. Not a result",
    )


class Watching(BaseModel):
    """How a run is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    follow: bool = Field(
        True,
        title="Show every step",
        description="the layer of the run follows; off: it is brought up to date at the end",
    )
    sweep: bool = Field(
        False, title="Sweep through the depth", description="each new picture shows the next slice"
    )
    prediction: bool = Field(
        False,
        title="Prediction before guidance",
        description="one more layer: what the network alone thinks",
    )
    keep_every: int = Field(
        1,
        ge=1,
        le=1000,
        title="Keep every n-th frame",
        description="for looking back and for films",
    )
    budget: int = Field(
        512,
        ge=16,
        le=65536,
        title="Frames in memory",
        json_schema_extra={"unit": "MB"},
        description="older frames go to disk",
    )


class ComparisonChoices(BaseModel):
    """What is compared, and how it is laid out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: Literal["side by side", "blink", "swipe", "difference", "overlay"] = Field(
        "side by side", title="View"
    )
    blink: float = Field(1.5, ge=0.2, le=10, title="Blink", json_schema_extra={"unit": "Hz"})
    radius: float = Field(
        0.3, ge=0.0, le=10, title="Radius of the column", json_schema_extra={"unit": "Å"}
    )
    sums: bool = Field(True, title="Depth sums")


class ExportChoices(BaseModel):
    """What is written, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = Field("", title="Folder", description="empty: where the data are")
    format: Literal[".tif", ".zarr", ".h5", ".mrc", ".npy"] = Field(".tif", title="Format")
    unit: Literal["rad", "V·Å"] = Field(
        "rad", title="Unit", description="phase, or projected potential per slice"
    )
    first: int = Field(0, ge=0, title="First slice")
    last: int | None = Field(None, ge=0, title="Last slice", description="empty: the deepest")
    region: str = Field(
        "", title="Region", description="a shapes layer with a rectangle; empty: the whole field"
    )
    overwrite: bool = Field(False, title="Replace files that are there")


class Choices(BaseModel):
    """All of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preparation: Preparation = Preparation()
    setup: Setup = Setup()
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="by solver: fields that differ from its defaults"
    )
    watching: Watching = Watching()
    comparison: ComparisonChoices = ComparisonChoices()
    export: ExportChoices = ExportChoices()


def valid_fields(solver: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Those of a solver's remembered settings that this version takes, field by field."""
    entry = SOLVERS.get(solver)
    if entry is None:
        return {}
    kept: dict[str, Any] = {}
    left = dict(fields)
    for _ in range(len(left)):  # a field may need another beside it: until nothing more fits
        fitting = {k: v for k, v in left.items() if _fits(entry, {**kept, k: v})}
        if not fitting:
            break
        name = next(iter(fitting))
        kept[name] = left.pop(name)
    return kept


def _fits(entry: Solver, fields: dict[str, Any]) -> bool:
    try:
        entry.default(**fields)
    except ValueError:
        return False
    return True
