"""A crystal recorded by an instrument with errors: what the logbook tells is not what was true.

The dataset's ``optics``, ``calibration`` and ``positions`` are the told ones: a regular raster and
rounded numbers. The truth lies apart: ``truth`` is the phase of the crystal at rest on the told
canvas, in the slices of the conditions, and ``truth_instrument`` has

- ``positions`` (N, 2) in Å on the canvas, and ``optics``, both as they were;
- ``instrument`` and ``conditions``, whole;
- ``thickness`` in Å, ``fine_slice`` in Å as it was used (None: the slices of the truth);
- ``dead_pixels``, ``hot_pixels``: lists of (row, column).

Where phonons, finite projection or fine slices are asked for, abTEM makes the potential itself and
the crystal fills the whole box; else the truth is sent through, with vacuum beyond the canvas.
Atoms at the top and bottom wrap around to the other end in a finite projection (abTEM's box is
periodic).
Every configuration has its own phonons, focus and, for each position, place in the source; places
and foci are drawn so that their mean is zero and their rms is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..base.extras import require
from ..physics.optics import interaction_parameter
from ..specimen.atoms import atoms_in
from ..specimen.kernels import MARGIN
from ..specimen.lattice import cut_box
from ..specimen.render import render
from .conditions import Conditions, layout
from .dataset import Calibration, FourDSTEM
from .instrument import Instrument
from .multislice import BATCH, box_of, patterns_of, potential_of

if TYPE_CHECKING:
    from ase import Atoms

    from ..specimen.volume import Volume

Array = NDArray[np.float64]


Progress = Callable[[int, int], None]


def record(
    crystal: Atoms, c: Conditions, instrument: Instrument, progress: Progress | None = None
) -> FourDSTEM:
    """Record a crystal with an instrument; see :func:`~.simulate.simulate`.

    Raises
    ------
    ValueError
        If the conditions contradict each other or the instrument.
    """
    _refuse(c, instrument)
    told, shape = layout(c)
    dz, pixel, _ = c.voxel_size
    thickness = c.slices * dz
    shift = told[0] - c.scan.positions()[0]
    rng = np.random.default_rng([c.seed, 1])
    positions = instrument.true_positions(c.scan, rng) + shift
    side, offset = box_of(shape, c.detector)
    own = instrument.own_potential
    box = cut_box(
        crystal,
        (thickness, shape[0] * pixel, shape[1] * pixel),
        zone_axis=c.zone_axis,
        rotation=c.rotation,
        shift=c.shift,
        margin=max(MARGIN, (max(offset) + 1) * pixel) if own else MARGIN,
        vacancies=c.vacancies,
        seed=c.seed,
    )
    size = np.array([shape[1], shape[0]]) * pixel
    xy = box.positions[:, :2]
    near = box[((xy >= -MARGIN) & (xy < size + MARGIN)).all(axis=1)]
    truth = render(near, (c.slices, *shape), c.voxel_size, energy=c.optics.energy)
    optics = instrument.true_optics(c.optics)
    members = instrument.members
    places = spread(rng, members, 2, instrument.source_size)
    foci = spread(rng, members, 1, instrument.focal_spread)[:, 0]
    rest = None if own else _padded(truth, side, offset)
    inner = (offset[1] * pixel, offset[0] * pixel)
    batches = members * -(-len(told) // BATCH)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, batches)

    total = np.zeros((len(told), c.detector, c.detector))
    for member in range(members):
        potential = rest
        if potential is None:
            potential = own_potential(box, instrument, c, side, inner, rng)
        total += patterns_of(
            potential,
            positions + places[member] + np.array(offset) * pixel,
            optics.model_copy(update={"overfocus": optics.overfocus + float(foci[member])}),
            side=side,
            pixel=pixel,
            detector=c.detector,
            soft=instrument.soft_aperture,
            tilt=instrument.tilt,
            advance=advance,
        )
    electrons = None if c.dose is None else c.dose * c.scan.step[0] * c.scan.step[1]
    data, mask, dead, hot = detected(
        total / members, electrons, instrument, np.random.default_rng([c.seed, 2])
    )
    told_optics = instrument.told_optics(c.optics)
    told_thickness = thickness + instrument.thickness_error
    conditions = c.model_dump(mode="json", exclude={"instrument"})
    ny, nx = c.scan.shape
    return FourDSTEM(
        data.reshape(ny, nx, c.detector, c.detector),
        Calibration(
            pixel_size=1 / (c.detector * pixel),
            energy=c.optics.energy,
            semi_angle=told_optics.semi_angle,
            scan_step=c.scan.step,
            rotation=c.scan.rotation,
            dose=c.dose,
            thickness=told_thickness,
        ),
        optics=told_optics,
        positions=told,
        boundary="extended",
        canvas=shape,
        mask=mask,
        truth=truth,
        truth_atoms=atoms_in(near, truth),
        truth_instrument={
            "positions": positions,
            "optics": optics.model_dump(mode="json"),
            "instrument": instrument.model_dump(mode="json"),
            "conditions": conditions,
            "thickness": thickness,
            "fine_slice": fine_slice(instrument, dz) if own else None,
            "electrons_per_pattern": electrons,
            "dead_pixels": dead,
            "hot_pixels": hot,
        },
        band_limit=2 / 3,
        provenance={
            "made_by": "mepdiff simulate",
            # what the logbook has; the rest is in truth_instrument
            "conditions": conditions
            | {
                "optics": told_optics.model_dump(mode="json"),
                "voxel_size": [told_thickness / c.slices, pixel, pixel],
            },
            "crystal": {k: str(v) for k, v in crystal.info.items() if k in ("id", "name", "source")}
            | {"formula": crystal.get_chemical_formula(mode="metal", empirical=True)},
        },
    )


def _refuse(c: Conditions, instrument: Instrument) -> None:
    if c.geometry != "extended":
        raise ValueError("an instrument records the extended geometry; ask for geometry 'extended'")
    if c.vibration or c.focal_spread or c.source_size:
        raise ValueError("with an instrument, give vibration, focal spread and source size there")
    if c.optics.soft_edge:
        raise ValueError("abTEM's soft aperture has no width; ask the instrument for soft_aperture")
    if (instrument.source_size or instrument.focal_spread) and instrument.configurations < 2:
        raise ValueError("source size and focal spread need two configurations or more")
    if c.dose is None and instrument.background:
        raise ValueError("a background in electrons needs a dose")
    if c.slices * c.voxel_size[0] + instrument.thickness_error <= 0:
        raise ValueError("the told thickness would be zero or less; lower the thickness error")
    if instrument.told_optics(c.optics).semi_angle <= 0:
        raise ValueError("the told semi-angle would be zero or less; lower the semi-angle error")
    if instrument.dead_pixels + instrument.hot_pixels > c.detector**2:
        raise ValueError("more dead and hot pixels than the detector has")


def spread(rng: np.random.Generator, members: int, axes: int, rms: float) -> Array:
    """Normal draws (members, axes) of mean 0 and exact rms; as much along every direction.

    All positions share them, as they share a source: drawn for each anew, a source of few points
    would look different, and shifted, at every position.
    """
    if rms == 0:
        return np.zeros((members, axes))
    drawn = rng.normal(size=(members, axes))
    drawn -= drawn.mean(axis=0)
    if members > axes:
        drawn = np.linalg.svd(drawn, full_matrices=False)[0]  # uncorrelated, each of length 1
    return np.asarray(drawn * (rms / np.sqrt((drawn**2).mean(axis=0))))


def fine_slice(instrument: Instrument, dz: float) -> float:
    """Thickness in Å of the slices that are simulated: a whole fraction of the truth's."""
    if instrument.fine_slice is None:
        return dz
    return float(dz / np.ceil(dz / instrument.fine_slice - 1e-9))


def own_potential(
    box: Atoms,
    instrument: Instrument,
    c: Conditions,
    side: int,
    inner: tuple[float, float],
    rng: np.random.Generator,
) -> Any:
    """abTEM's potential of the whole box, one frozen configuration.

    Parameters
    ----------
    box : Atoms
        (x, y, z) in Å from the corner of the canvas.
    inner : (x, y)
        Å from the corner of the FFT box to that of the canvas.
    """
    abtem = require("abtem", "simulate", "Simulating recordings")
    length, thickness = side * c.voxel_size[1], c.slices * c.voxel_size[0]
    moved = box.copy()
    moved.positions[:, :2] += inner
    inside = (moved.positions[:, :2] >= -1e-6) & (moved.positions[:, :2] < length - 1e-6)
    moved = moved[inside.all(axis=1)]
    rms = instrument.vibration_of(moved.get_chemical_symbols())
    if rms.any():
        moved.positions += rng.normal(size=moved.positions.shape) * rms
        # an atom that leaves the box at top or bottom stays in the outermost slice
        moved.positions[:, 2] = moved.positions[:, 2].clip(0, thickness - 1e-6)
    moved.set_cell([length, length, thickness])
    moved.pbc = True
    potential = abtem.Potential(
        moved,
        gpts=(side, side),
        slice_thickness=fine_slice(instrument, c.voxel_size[0]),
        parametrization="lobato",
        projection="finite" if instrument.finite else "infinite",
    )
    with abtem.config.set({"diagnostics.progress_bar": False, "precision": "float32"}):
        return potential.build(lazy=False)


def _padded(truth: Volume, side: int, offset: tuple[int, int]) -> Any:
    depth, height, width = truth.shape
    phase = np.zeros((depth, side, side), np.float32)
    phase[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width] = truth.array
    assert truth.energy is not None
    sigma = interaction_parameter(truth.energy)
    return potential_of(phase, truth.voxel_size[1], truth.voxel_size[0], sigma)


def detected(
    fractions: Array, electrons: float | None, instrument: Instrument, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[np.float32] | None, list[list[int]], list[list[int]]]:
    """What the detector writes of patterns (N, K, K): blur, background, shot noise, gain, bad
    pixels.

    Returns
    -------
    data, mask or None, dead pixels, hot pixels (row, column)
    """
    if instrument.blur:
        from scipy.ndimage import gaussian_filter

        blur = (0, instrument.blur, instrument.blur)
        fractions = gaussian_filter(fractions, blur, mode="nearest")
    if electrons is None:
        data: NDArray[Any] = fractions.astype(np.float32)
    else:
        data = rng.poisson(fractions * electrons + instrument.background)
        data = data.astype(np.uint16 if data.max() < 65536 else np.uint32)
    if instrument.gain != 1:
        data = (data * instrument.gain).astype(np.float32)
    bad = instrument.dead_pixels + instrument.hot_pixels
    if not bad:
        return data, None, [], []
    side = data.shape[-1]
    drawn = rng.choice(side * side, bad, replace=False)
    places = np.stack(np.divmod(drawn, side), axis=1)
    dead, hot = np.split(places, [instrument.dead_pixels])
    data[:, dead[:, 0], dead[:, 1]] = 0
    brightest = 10.0 * float(data.max())
    if data.dtype.kind == "u":
        brightest = min(brightest, float(np.iinfo(data.dtype).max))
    data[:, hot[:, 0], hot[:, 1]] = brightest
    mask = None
    if instrument.masked:
        mask = np.ones(data.shape[-2:], np.float32)
        mask[places[:, 0], places[:, 1]] = 0
    return data, mask, dead.tolist(), hot.tolist()
