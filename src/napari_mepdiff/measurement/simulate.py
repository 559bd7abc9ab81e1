"""4D-STEM data from a specimen, by abTEM; by default under the paper's conditions (appendix A).

Two geometries:

- ``paper``: 8 × 64 × 64 voxels of 1.6 × 0.2 × 0.2 Å, which the 26 × 26 scan covers exactly, tiled
  2 × 2 into the 25.6 Å window. Periodic, so that simulation and model agree without padding.
- ``extended``: the real experiment. The specimen goes on beyond the scanned field; canvas = scan
  extent + window.

The ground truth that comes with the data is the phase volume that was sent through abTEM (at rest,
where atoms vibrate).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..base.extras import require
from ..physics.conversions import to_abtem
from ..physics.optics import Optics, interaction_parameter
from ..physics.scan import Raster, canvas_shape
from ..specimen.atoms import atoms_in
from ..specimen.kernels import MARGIN
from ..specimen.lattice import cut_box
from ..specimen.render import render
from ..specimen.volume import Volume
from .dataset import Calibration, FourDSTEM

if TYPE_CHECKING:
    from ase import Atoms

Progress = Callable[[int, int], None]


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

    @property
    def k_max(self) -> float:
        """Largest recorded frequency along an axis, Å⁻¹."""
        return 0.5 / self.voxel_size[2]


def simulate(
    crystal: Atoms, conditions: Conditions | None = None, progress: Progress | None = None
) -> FourDSTEM:
    """Record a crystal.

    Parameters
    ----------
    crystal : Atoms
        Unit cell, see :func:`~napari_mepdiff.specimen.cif.load_crystal`.
    conditions : Conditions
        Geometry, optics, dose, noise.
    progress : callable, optional
        Called with (members done, members).

    Returns
    -------
    FourDSTEM
        Counts (or noise-free electrons) with calibration, positions, ground truth and the true
        probe settings.

    Raises
    ------
    ValueError
        If the conditions contradict each other.
    """
    c = conditions or Conditions()
    positions, shape = _layout(c)
    size = (c.slices * c.voxel_size[0], shape[0] * c.voxel_size[1], shape[1] * c.voxel_size[2])
    box = cut_box(
        crystal,
        size,
        zone_axis=c.zone_axis,
        rotation=c.rotation,
        shift=c.shift,
        margin=MARGIN,
        vacancies=c.vacancies,
        seed=c.seed,
    )
    truth = render(box, (c.slices, *shape), c.voxel_size, energy=c.optics.energy)
    rng = np.random.default_rng([c.seed, 1])
    still = c.vibration == 0 and c.focal_spread == 0 and c.source_size == 0
    members = 1 if still else c.members
    total: NDArray[np.float64] | None = None
    for member in range(members):
        volume = truth
        if c.vibration > 0:
            moved = box.copy()
            moved.positions += rng.normal(0, c.vibration, moved.positions.shape)
            # an atom that leaves the box at top or bottom stays in the outermost slice
            moved.positions[:, 2] = moved.positions[:, 2].clip(0, size[0] - 1e-6)
            volume = render(moved, truth.shape, c.voxel_size, energy=c.optics.energy)
        optics = c.optics.model_copy(
            update={
                "overfocus": c.optics.overfocus
                + float(rng.normal(0, c.focal_spread) if c.focal_spread else 0)
            }
        )
        offset = rng.normal(0, c.source_size, 2) if c.source_size else np.zeros(2)
        part = diffraction(volume, positions + offset, optics, c.detector, c.geometry)
        total = part if total is None else total + part
        if progress:
            progress(member + 1, members)
    assert total is not None
    fractions = total / members
    electrons = None
    if c.dose is not None:
        electrons = c.dose * c.scan.step[0] * c.scan.step[1]
        data: NDArray[Any] = np.random.default_rng([c.seed, 2]).poisson(fractions * electrons)
        data = data.astype(np.uint16 if data.max() < 65536 else np.uint32)
    else:
        data = fractions.astype(np.float32)
    ny, nx = c.scan.shape
    window = c.detector * c.voxel_size[2]
    settings = c.model_dump(mode="json")
    return FourDSTEM(
        data.reshape(ny, nx, c.detector, c.detector),
        Calibration(
            pixel_size=1 / window,
            energy=c.optics.energy,
            semi_angle=c.optics.semi_angle,
            scan_step=c.scan.step,
            rotation=c.scan.rotation,
            dose=c.dose,
            thickness=size[0],
        ),
        optics=c.optics,
        positions=positions,
        boundary="periodic" if c.geometry == "paper" else "extended",
        canvas=shape,
        truth=truth,
        truth_atoms=atoms_in(box, truth),
        band_limit=2 / 3,
        provenance={
            "made_by": "mepdiff simulate",
            "conditions": settings,
            "electrons_per_pattern": electrons,
            "crystal": {k: str(v) for k, v in crystal.info.items() if k in ("id", "name", "source")}
            | {"formula": crystal.get_chemical_formula(mode="metal", empirical=True)},
        },
    )


def _layout(c: Conditions) -> tuple[NDArray[np.float64], tuple[int, int]]:
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


def diffraction(
    volume: Volume,
    positions: NDArray[np.float64],
    optics: Optics,
    detector: int,
    geometry: Literal["paper", "extended"] = "paper",
) -> NDArray[np.float64]:
    """Noise-free patterns of a phase volume by abTEM, as fractions of the incident beam.

    Parameters
    ----------
    volume : Volume
        Phase in rad.
    positions : ndarray
        (N, 2), Å, (y, x).
    optics : Optics
        Its aberrations go to abTEM under their Krivanek names; the edge of the aperture is hard.
    detector : int
        Pixels per side; the window is detector × pixel size.
    geometry : 'paper' or 'extended'
        Paper: the volume is tiled into the window. Extended: the volume is put into a box of a
        whole multiple of the window and the finer patterns are sampled at the detector's pixels,
        which is what a detector does.

    Returns
    -------
    ndarray
        float64 (N, detector, detector), DC at detector // 2.
    """
    abtem = require("abtem", "simulate", "Simulating recordings")
    dz, pixel, _ = volume.voxel_size
    depth, height, width = volume.shape
    phase = volume.to_unit("rad").array
    offset = np.zeros(2, dtype=int)
    if geometry == "paper":
        stride, side = 1, detector
        phase = np.tile(phase, (1, side // height, side // width))
    else:
        stride = int(np.ceil((max(height, width) + 16) / detector))
        side = stride * detector
        offset = np.array([(side - height) // 2, (side - width) // 2])
        padded = np.zeros((depth, side, side), np.float32)
        padded[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width] = phase
        phase = padded
    potential = abtem.PotentialArray(
        np.ascontiguousarray((phase / interaction_parameter(optics.energy)).transpose(0, 2, 1)),
        slice_thickness=dz,
        extent=(side * pixel, side * pixel),
    )
    probe = abtem.Probe(
        energy=optics.energy * 1e3,
        semiangle_cutoff=optics.semi_angle,
        soft=False,
        aberrations=to_abtem(optics),
        gpts=(side, side),
        extent=(side * pixel, side * pixel),
    )
    xy = (positions + offset * pixel)[:, ::-1]
    middle = (side // 2 - stride * (detector // 2), stride)
    out = np.empty((len(positions), detector, detector))
    with abtem.config.set({"diagnostics.progress_bar": False, "precision": "float32"}):
        for start in range(0, len(xy), 64):
            scan = abtem.CustomScan(xy[start : start + 64])
            waves: Any = probe.multislice(potential, scan=scan, lazy=False)
            patterns = waves.diffraction_patterns(
                max_angle=None, parity="same", fftshift=True
            ).array
            patterns = np.asarray(patterns, dtype=np.float64).transpose(0, 2, 1)
            out[start : start + 64] = patterns[:, middle[0] :: middle[1], middle[0] :: middle[1]][
                :, :detector, :detector
            ]
        free = probe.build(abtem.CustomScan(np.array([[side * pixel / 2] * 2])), lazy=False)
        vacuum = np.asarray(
            free.diffraction_patterns(max_angle=None, parity="same").array, dtype=np.float64
        )
    out *= stride**2 / vacuum.sum()
    return out
