"""FourDSTEM: patterns that stay on disk until they are needed, with calibration and what belongs to them.

The patterns are a dask array (scan y, scan x, detector y, detector x), chunked along the scan. Every change (crop,
bin, flip, repair …) returns a new, still lazy dataset; nothing is read before a result is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..physics.optics import Optics, wavelength
from ..physics.scan import Boundary, Raster

if TYPE_CHECKING:
    from ..specimen.volume import Volume

CHUNK_BYTES = 16 * 1024**2
MEMORY_BUDGET = 2 * 1024**3


class DataError(ValueError):
    """The data cannot be what they claim to be; the message names the fault and what to do."""


class Calibration(BaseModel):
    """What the microscope's numbers mean. None: not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size: float | None = Field(None, gt=0, title="Detector pixel", description="Å⁻¹")
    energy: float | None = Field(None, gt=0, title="Beam energy", description="kV")
    semi_angle: float | None = Field(None, gt=0, title="Convergence semi-angle", description="mrad")
    scan_step: tuple[float, float] | None = Field(None, title="Scan step", description="Å, (y, x)")
    rotation: float = Field(0.0, title="Scan rotation", description="degrees, scan against detector")
    dose: float | None = Field(None, gt=0, title="Dose", description="e/Å²")

    @property
    def pixel_mrad(self) -> float | None:
        """Detector pixel in mrad, if pixel size and energy are known."""
        if self.pixel_size is None or self.energy is None:
            return None
        return self.pixel_size * wavelength(self.energy) * 1e3

    def with_pixel_mrad(self, mrad: float) -> Calibration:
        """The calibration with the detector pixel given in mrad.

        Raises
        ------
        DataError
            If the energy is not known.
        """
        if self.energy is None:
            raise DataError("a pixel size in mrad needs the beam energy (kV) as well")
        return self.model_copy(update={"pixel_size": mrad * 1e-3 / wavelength(self.energy)})

    @property
    def disk_radius(self) -> float | None:
        """Radius of the bright-field disk in detector pixels."""
        if self.pixel_mrad is None or self.semi_angle is None:
            return None
        return self.semi_angle / self.pixel_mrad


@dataclass(frozen=True)
class FourDSTEM:
    """A 4D-STEM measurement.

    Parameters
    ----------
    data : array
        (Ny, Nx, Ky, Kx); numpy, h5py, zarr, memory map or dask. DC at (Ky // 2, Kx // 2) once centred.
    calibration : Calibration
    optics : Optics, optional
        Full illumination settings, where known.
    positions : (N, 2) array, optional
        Å, (y, x); the regular raster of the calibration if not given.
    boundary : 'periodic' or 'extended'
        How the specimen goes on beyond the scanned field.
    canvas : (H, W), optional
        Voxels of the periodic field; the scan does not tell it.
    mask : (Ky, Kx) array, optional
        Detector pixels to use (1) or not (0).
    probe : (M, Ky, Kx) complex array, optional
        Known illumination, centred.
    truth : Volume, optional
        The specimen, where it is known (simulations).
    truth_atoms : dict, optional
        ``numbers`` (n,), ``positions`` (n, 3) as (z, y, x) in Å of the truth.
    band_limit : float, optional
        Band limit of the simulation that made the data.
    provenance : dict
        Where the data come from and what was done to them.
    """

    data: Any
    calibration: Calibration = field(default_factory=Calibration)
    optics: Optics | None = None
    positions: NDArray[np.float64] | None = None
    boundary: Boundary = "extended"
    canvas: tuple[int, int] | None = None
    mask: NDArray[np.float32] | None = None
    probe: NDArray[np.complex64] | None = None
    truth: Volume | None = None
    truth_atoms: dict[str, NDArray[Any]] | None = None
    band_limit: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = self.data
        shape = tuple(getattr(data, "shape", ()))
        if len(shape) != 4:
            raise DataError(
                f"4D-STEM data have four axes (scan y, scan x, detector y, detector x); these have {len(shape)}: {shape}"
            )
        if 0 in shape:
            raise DataError(f"the data are empty: shape {shape}")
        if not isinstance(data, da.Array):
            dtype = np.dtype(data.dtype)
            if dtype.kind not in "uif":
                raise DataError(f"patterns are real numbers; these are of type {dtype}")
            data = da.from_array(data, chunks=chunks(shape, dtype.itemsize), name=False, asarray=True)
        elif data.dtype.kind not in "uif":
            raise DataError(f"patterns are real numbers; these are of type {data.dtype}")
        object.__setattr__(self, "data", data)
        if self.positions is not None:
            positions = np.asarray(self.positions, dtype=np.float64)
            if positions.shape != (shape[0] * shape[1], 2) or not np.isfinite(positions).all():
                raise DataError(f"{shape[0] * shape[1]} patterns need as many finite (y, x) positions, "
                                f"got an array of shape {positions.shape}")
            object.__setattr__(self, "positions", positions)
        if self.mask is not None and tuple(self.mask.shape) != shape[2:]:
            raise DataError(f"the detector mask is {self.mask.shape}, the patterns are {shape[2:]}")
        if self.probe is not None and tuple(self.probe.shape[-2:]) != shape[2:]:
            raise DataError(f"the probe is {self.probe.shape[-2:]}, the patterns are {shape[2:]}")

    # ---- what there is ----------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(Ny, Nx, Ky, Kx)."""
        return self.data.shape

    @property
    def scan_shape(self) -> tuple[int, int]:
        """(Ny, Nx)."""
        return self.data.shape[:2]

    @property
    def detector_shape(self) -> tuple[int, int]:
        """(Ky, Kx)."""
        return self.data.shape[2:]

    @property
    def nbytes(self) -> int:
        """Size of the patterns when read, bytes."""
        return int(self.data.nbytes)

    @property
    def real_pixel(self) -> tuple[float, float]:
        """Real-space pixel (dy, dx) in Å that belongs to the detector: 1 / (K · pixel size).

        Raises
        ------
        DataError
            If the detector is not calibrated.
        """
        if self.calibration.pixel_size is None:
            raise DataError("the detector pixel size is not known; set it in Å⁻¹ or in mrad")
        return tuple(1 / (n * self.calibration.pixel_size) for n in self.detector_shape)  # type: ignore[return-value]

    def scan_positions(self) -> NDArray[np.float64]:
        """Positions (N, 2) in Å: those stored, or the regular raster.

        Raises
        ------
        DataError
            If neither positions nor a scan step are known.
        """
        if self.positions is not None:
            return self.positions
        if self.calibration.scan_step is None:
            raise DataError("neither positions nor a scan step are known; set the scan step in Å")
        return Raster(
            shape=self.scan_shape, step=self.calibration.scan_step, rotation=self.calibration.rotation
        ).positions()

    def illumination(self) -> Optics:
        """Optics as far as they are known.

        Raises
        ------
        DataError
            If energy or semi-angle are missing.
        """
        if self.optics is not None:
            return self.optics
        c = self.calibration
        if c.energy is None or c.semi_angle is None:
            missing = [n for n, v in (("beam energy (kV)", c.energy), ("semi-angle (mrad)", c.semi_angle)) if v is None]
            raise DataError(f"the illumination is not known: {' and '.join(missing)} missing")
        return Optics(energy=c.energy, semi_angle=c.semi_angle, overfocus=0.0, C30=0.0)

    def patterns(self, budget: int = 8 * 1024**3) -> NDArray[np.float32]:
        """All patterns in memory, (N, Ky, Kx) float32.

        Raises
        ------
        MemoryError
            If they need more than `budget` bytes.
        """
        size = int(np.prod(self.shape)) * 4
        if size > budget:
            raise MemoryError(
                f"the patterns need {size / 1e9:.1f} GB, more than the {budget / 1e9:.1f} GB allowed: crop or bin them"
            )
        out = np.empty(self.shape, np.float32)
        da.store(self.data.astype(np.float32), out, lock=False, compute=True)
        return out.reshape(-1, *self.detector_shape)

    def pattern(self, y: int, x: int) -> NDArray[Any]:
        """One pattern, (Ky, Kx)."""
        return np.asarray(self.data[y, x])

    def loaded(self, budget: int = MEMORY_BUDGET) -> FourDSTEM:
        """The same dataset with its patterns in memory if they fit the budget, else itself."""
        if self.nbytes > budget:
            return self
        return replace(self, data=np.asarray(self.data))

    # ---- changes, all lazy ------------------------------------------------------------------------------------
    def calibrated(self, **fields: Any) -> FourDSTEM:
        """With calibration fields replaced (validated): ``calibrated(energy=200, scan_step=(0.4, 0.4))``."""
        new = Calibration.model_validate({**self.calibration.model_dump(), **fields})
        optics = self.optics
        if optics is not None:
            update = {k: fields[k] for k in ("energy", "semi_angle") if fields.get(k) is not None}
            optics = Optics.model_validate({**optics.model_dump(), **update})
        stale = {"scan_step", "rotation"} & fields.keys()
        return replace(self, calibration=new, optics=optics, positions=None if stale else self.positions)

    def crop_scan(self, y: slice = slice(None), x: slice = slice(None)) -> FourDSTEM:
        """A part of the scan; its ground truth no longer fits an extended canvas and is dropped unless nothing changes."""
        ny, nx = self.scan_shape
        part = self.data[y, x]
        positions = None if self.positions is None else self.positions.reshape(ny, nx, 2)[y, x].reshape(-1, 2)
        if positions is None and self.calibration.scan_step is not None:
            positions = self.scan_positions().reshape(ny, nx, 2)[y, x].reshape(-1, 2)
        return self._changed(part, f"crop_scan({y}, {x})", positions=positions)

    def crop_detector(self, size: int) -> FourDSTEM:
        """The central `size` × `size` detector pixels: coarser real-space pixels, same window.

        Raises
        ------
        DataError
            If the detector is smaller than that.
        """
        ky, kx = self.detector_shape
        if not 0 < size <= min(ky, kx):
            raise DataError(f"cannot crop a detector of {ky} × {kx} pixels to {size}")
        rows = slice(ky // 2 - size // 2, ky // 2 - size // 2 + size)
        cols = slice(kx // 2 - size // 2, kx // 2 - size // 2 + size)
        mask = None if self.mask is None else self.mask[rows, cols]
        return self._changed(self.data[:, :, rows, cols], f"crop_detector({size})", mask=mask, probe=None, truth=None,
                             truth_atoms=None)

    def bin_detector(self, factor: int) -> FourDSTEM:
        """Sum of factor × factor detector pixels; a remainder at the edge is cut off."""
        ky, kx = self.detector_shape
        if not 1 <= factor <= min(ky, kx):
            raise DataError(f"cannot bin a detector of {ky} × {kx} pixels by {factor}")
        data = self._counting(self.data)[:, :, : ky // factor * factor, : kx // factor * factor]
        data = da.coarsen(np.sum, data, {2: factor, 3: factor})
        size = self.calibration.pixel_size
        calibration = self.calibration.model_copy(update={"pixel_size": None if size is None else size * factor})
        mask = None
        if self.mask is not None:
            cut = self.mask[: ky // factor * factor, : kx // factor * factor]
            mask = (cut.reshape(ky // factor, factor, kx // factor, factor).min(axis=(1, 3))).astype(np.float32)
        return self._changed(data, f"bin_detector({factor})", calibration=calibration, mask=mask, probe=None,
                             truth=None, truth_atoms=None)

    def bin_scan(self, factor: int) -> FourDSTEM:
        """Sum of factor × factor neighbouring positions, placed at their middle."""
        ny, nx = self.scan_shape
        if not 1 <= factor <= min(ny, nx):
            raise DataError(f"cannot bin a scan of {ny} × {nx} positions by {factor}")
        my, mx = ny // factor, nx // factor
        data = self._counting(self.data)[: my * factor, : mx * factor]
        data = da.coarsen(np.sum, data, {0: factor, 1: factor})
        step, positions = self.calibration.scan_step, None
        if self.positions is not None or step is not None:
            grid = self.scan_positions().reshape(ny, nx, 2)[: my * factor, : mx * factor]
            positions = grid.reshape(my, factor, mx, factor, 2).mean(axis=(1, 3)).reshape(-1, 2)
        new_step = None if step is None else (step[0] * factor, step[1] * factor)
        calibration = self.calibration.model_copy(update={"scan_step": new_step})
        return self._changed(data, f"bin_scan({factor})", calibration=calibration, positions=positions)

    def flip_detector(self, y: bool = False, x: bool = False) -> FourDSTEM:
        """Mirror the patterns about DC: even sizes keep DC at K // 2."""
        data, mask = self.data, self.mask
        for axis, wanted in ((2, y), (3, x)):
            if wanted:
                n = self.shape[axis]
                order = (2 * (n // 2) - np.arange(n)) % n
                data = da.take(data, order, axis=axis)
                mask = None if mask is None else np.take(mask, order, axis=axis - 2)
        return self._changed(data, f"flip_detector(y={y}, x={x})", mask=mask, probe=None)

    def transpose_detector(self) -> FourDSTEM:
        """Swap the detector axes."""
        return self._changed(self.data.transpose(0, 1, 3, 2), "transpose_detector()", probe=None,
                             mask=None if self.mask is None else self.mask.T)

    def transpose_scan(self) -> FourDSTEM:
        """Swap the scan axes of the data (positions of a plain raster follow)."""
        step = self.calibration.scan_step
        calibration = self.calibration.model_copy(update={"scan_step": None if step is None else step[::-1]})
        positions = None
        if self.positions is not None:
            ny, nx = self.scan_shape
            positions = self.positions.reshape(ny, nx, 2).transpose(1, 0, 2).reshape(-1, 2)
        return self._changed(self.data.transpose(1, 0, 2, 3), "transpose_scan()", calibration=calibration,
                             positions=positions)

    def subtract_background(self, background: float | ArrayLike) -> FourDSTEM:
        """Subtract a constant or a (Ky, Kx) dark pattern, electrons; results below zero become zero."""
        dark = np.asarray(background, dtype=np.float32)
        if dark.ndim not in (0, 2) or (dark.ndim == 2 and dark.shape != self.detector_shape):
            raise DataError(f"a background is a number or a {self.detector_shape} pattern, got shape {dark.shape}")
        if not np.isfinite(dark).all():
            raise DataError("the background contains NaN or infinite values")
        return self._changed((self.data.astype(np.float32) - dark).clip(0), "subtract_background()")

    def to_electrons(self, gain: float) -> FourDSTEM:
        """Divide detector units by `gain` (units per electron)."""
        if not gain > 0:
            raise DataError(f"the gain must be positive, got {gain}")
        return self._changed(self.data.astype(np.float32) / np.float32(gain), f"to_electrons({gain})")

    def repair_hot_pixels(self, hot: NDArray[np.bool_]) -> FourDSTEM:
        """Replace marked detector pixels by the mean of their unmarked neighbours, and mask them.

        Raises
        ------
        DataError
            If the marks do not fit the detector or leave nothing.
        """
        if hot.shape != self.detector_shape or hot.all():
            raise DataError(f"hot pixels are a {self.detector_shape} image of marks that leaves some pixels")
        if not hot.any():
            return self
        from .virtual import repair_block

        data = self.data.map_blocks(repair_block, hot=hot, dtype=np.float32)
        mask = np.where(hot, 0, 1 if self.mask is None else self.mask).astype(np.float32)
        return self._changed(data, f"repair_hot_pixels({int(hot.sum())} pixels)", mask=mask)

    def centred(self, centre: tuple[float, float]) -> FourDSTEM:
        """Shift patterns by whole pixels so that `centre` (y, x) comes to K // 2; what enters is zero and masked."""
        ky, kx = self.detector_shape
        dy, dx = round(ky // 2 - centre[0]), round(kx // 2 - centre[1])
        if (dy, dx) == (0, 0):
            return self
        if abs(dy) >= ky // 2 or abs(dx) >= kx // 2:
            raise DataError(f"the centre {centre} lies outside the middle of the detector {ky} × {kx}")
        gone = np.zeros((ky, kx), bool)
        gone[slice(0, dy) if dy > 0 else slice(ky + dy, ky) if dy < 0 else slice(0, 0), :] = True
        gone[:, slice(0, dx) if dx > 0 else slice(kx + dx, kx) if dx < 0 else slice(0, 0)] = True
        data = da.roll(self.data, (dy, dx), axis=(2, 3))
        data = da.where(gone, np.zeros((), self.data.dtype), data)
        old = np.ones((ky, kx), np.float32) if self.mask is None else np.roll(self.mask, (dy, dx), (0, 1))
        return self._changed(data, f"centred({centre})", mask=np.where(gone, 0, old).astype(np.float32), probe=None)

    # ---- small parts ------------------------------------------------------------------------------------------
    @staticmethod
    def _counting(data: Any) -> Any:
        """Integers wide enough for sums."""
        return data.astype(np.uint32) if data.dtype.kind == "u" else data.astype(np.float32)

    def _changed(self, data: Any, step: str, **fields: Any) -> FourDSTEM:
        steps = [*self.provenance.get("steps", []), step]
        size = self.shape
        keep = chunks(data.shape, data.dtype.itemsize) if data.shape != size else None
        if keep is not None:
            data = data.rechunk(keep)
        return replace(self, data=data, provenance={**self.provenance, "steps": steps}, **fields)


def chunks(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Chunks of about CHUNK_BYTES: whole patterns, whole scan rows where they fit."""
    pattern = int(shape[2]) * int(shape[3]) * itemsize
    along_x = max(1, min(int(shape[1]), CHUNK_BYTES // max(1, pattern)))
    along_y = max(1, min(int(shape[0]), CHUNK_BYTES // max(1, pattern * along_x))) if along_x == shape[1] else 1
    return along_y, along_x, int(shape[2]), int(shape[3])
