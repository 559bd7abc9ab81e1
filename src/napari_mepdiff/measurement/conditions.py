"""How simulated data are taken: optics, scan, geometry, dose, noise."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..physics.optics import Optics
from ..physics.scan import Raster, canvas_shape
from .instrument import Instrument


class Conditions(BaseModel):
    """How the data are taken. Defaults are the paper's appendix A."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optics: Optics = Field(default_factory=Optics)
    scan: Raster = Field(default_factory=Raster)
    geometry: Literal["paper", "extended"] = Field("paper", title="Geometry")
    slices: int = Field(8, ge=1, le=1000, title="Slices")
    voxel_size: tuple[float, float, float] = Field(
        (1.6, 0.2, 0.2), title="Voxel size", description="Å, (z, y, x)"
    )
    field: tuple[int, int] = Field(
        (64, 64), title="Field of the paper geometry", description="voxels (y, x)"
    )
    detector: int = Field(128, ge=16, le=1024, title="Detector pixels", description="per side")
    dose: float | None = Field(
        1e6, gt=0, title="Dose", description="e/Å²; none for noise-free intensities"
    )
    seed: int = Field(0, title="Seed", description="of noise, vacancies, vibrations")
    zone_axis: str | tuple[float, float, float] = Field("c", title="Zone axis")
    rotation: float = Field(0.0, title="In-plane rotation", description="degrees")
    shift: tuple[float, float, float] = Field(
        (0.0, 0.0, 0.0), title="Shift", description="Å, (z, y, x)"
    )
    vacancies: float = Field(0.01, ge=0, lt=1, title="Vacancies", description="fraction of atoms")
    members: int = Field(
        1,
        ge=1,
        le=1000,
        title="Ensemble members",
        description="frozen-phonon and incoherence configurations averaged",
    )
    vibration: float = Field(
        0.0, ge=0, le=1, title="Vibration", description="rms displacement per axis, Å"
    )
    focal_spread: float = Field(
        0.0, ge=0, title="Focal spread", description="rms, Å; partial temporal coherence"
    )
    source_size: float = Field(
        0.0, ge=0, title="Source size", description="rms, Å; partial spatial coherence"
    )
    instrument: Instrument | None = Field(
        None, title="Instrument", description="its errors; none for a perfect one"
    )

    @property
    def k_max(self) -> float:
        """Largest recorded frequency along an axis, Å⁻¹."""
        return 0.5 / self.voxel_size[2]


def layout(c: Conditions) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Positions in Å on the canvas, and the canvas in pixels."""
    positions = c.scan.positions()
    if c.voxel_size[1] != c.voxel_size[2]:
        raise ValueError("abTEM patterns are simulated on square pixels; give dy = dx")
    if c.geometry == "paper":
        if c.detector % c.field[0] or c.detector % c.field[1]:
            raise ValueError(
                f"the detector ({c.detector} px) must be a multiple of the periodic field {c.field}"
            )
        return positions, c.field
    shape, positions = canvas_shape(positions, c.voxel_size[1:], (c.detector, c.detector))
    return positions, shape
