"""4D-STEM data from a specimen, by abTEM; by default under the paper's conditions (appendix A).

Two geometries:

- ``paper``: 8 × 64 × 64 voxels of 1.6 × 0.2 × 0.2 Å, which the 26 × 26 scan covers exactly, tiled
  2 × 2 into the 25.6 Å window. Periodic, so that simulation and model agree without padding.
- ``extended``: the real experiment. The specimen goes on beyond the scanned field; canvas = scan
  extent + window.

The ground truth that comes with the data is the phase volume that was sent through abTEM (at rest,
where atoms vibrate). With :class:`~.instrument.Instrument` the measurement is a real instrument's,
see :mod:`.recording`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..physics.optics import Optics, interaction_parameter
from ..specimen.atoms import atoms_in
from ..specimen.kernels import MARGIN
from ..specimen.lattice import cut_box
from ..specimen.render import render
from ..specimen.volume import Volume
from .conditions import Conditions, layout
from .dataset import Calibration, FourDSTEM
from .multislice import box_of, patterns_of, potential_of
from .recording import Progress, record

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Conditions", "Progress", "diffraction", "simulate"]


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
        Called with (members done, members), or with batches where there is an instrument; what it
        raises ends the work.

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
    if c.instrument is not None:
        return record(crystal, c, c.instrument, progress)
    positions, shape = layout(c)
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
    settings = c.model_dump(mode="json", exclude={"instrument"})
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


def diffraction(
    volume: Volume,
    positions: NDArray[np.float64],
    optics: Optics,
    detector: int,
    geometry: Literal["paper", "extended"] = "paper",
    soft: bool = False,
) -> NDArray[np.float64]:
    """Noise-free patterns of a phase volume by abTEM, as fractions of the incident beam.

    Parameters
    ----------
    volume : Volume
        Phase in rad.
    positions : ndarray
        (N, 2), Å, (y, x).
    optics : Optics
        C10 and C30 go to abTEM under their names, as do the astigmatisms and comas.
    detector : int
        Pixels per side; the window is detector × pixel size.
    geometry : 'paper' or 'extended'
        Paper: the volume is tiled into the window. Extended: the volume is put into a box of a
        whole multiple of the window and the finer patterns are sampled at the detector's pixels,
        which is what a detector does.
    soft : bool
        abTEM's soft aperture edge, one angular pixel wide.

    Returns
    -------
    ndarray
        float64 (N, detector, detector), DC at detector // 2.
    """
    dz, pixel, _ = volume.voxel_size
    depth, height, width = volume.shape
    phase = volume.to_unit("rad").array
    offset = (0, 0)
    if geometry == "paper":
        side = detector
        phase = np.tile(phase, (1, side // height, side // width))
    else:
        side, offset = box_of((height, width), detector)
        padded = np.zeros((depth, side, side), np.float32)
        padded[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width] = phase
        phase = padded
    return patterns_of(
        potential_of(phase, pixel, dz, interaction_parameter(optics.energy)),
        positions + np.array(offset) * pixel,
        optics,
        soft=soft,
        side=side,
        pixel=pixel,
        detector=detector,
    )
