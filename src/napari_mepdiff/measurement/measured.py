"""A measurement as it lies there: patterns, calibration, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ..physics.optics import Optics
from ..physics.scan import Boundary, Raster
from .blocks import chunks
from .calibration import Calibration, DataError
from .reading import Reading, kept_type

if TYPE_CHECKING:
    from ..specimen.volume import Volume

MEMORY_BUDGET = 2 * 1024**3


@dataclass(frozen=True)
class Measured:
    """A 4D-STEM measurement without what can be done to it; users have a
    :class:`~napari_mepdiff.measurement.dataset.FourDSTEM`, which says what the fields are."""

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
    truth_instrument: dict[str, Any] | None = None
    band_limit: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    reading: Reading = field(default=None, repr=False, compare=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        data, memory = self.data, None
        shape = tuple(getattr(data, "shape", ()))
        if len(shape) != 4:
            raise DataError(
                "4D-STEM data have four axes (scan y, scan x, detector y, detector x); these have "
                f"{len(shape)}: {shape}"
            )
        if 0 in shape:
            raise DataError(f"the data are empty: shape {shape}")
        if not isinstance(data, da.Array):
            dtype = np.dtype(data.dtype)
            if dtype.kind not in "uif":
                raise DataError(f"patterns are real numbers; these are of type {dtype}")
            if isinstance(data, np.ndarray) and not isinstance(data, np.memmap):
                memory = data
            data = da.from_array(
                data, chunks=chunks(shape, dtype.itemsize), name=False, asarray=True
            )
        elif data.dtype.kind not in "uif":
            raise DataError(f"patterns are real numbers; these are of type {data.dtype}")
        elif any(len(parts) != 1 for parts in data.chunks[2:]):
            data = data.rechunk(chunks(shape, data.dtype.itemsize))
        object.__setattr__(self, "data", data)
        if self.reading is None or self.reading.array is not data:
            object.__setattr__(self, "reading", Reading(data, memory))
        if self.positions is not None:
            positions = np.asarray(self.positions, dtype=np.float64)
            if positions.shape != (shape[0] * shape[1], 2) or not np.isfinite(positions).all():
                raise DataError(
                    f"{shape[0] * shape[1]} patterns need as many finite (y, x) positions, "
                    f"got an array of shape {positions.shape}"
                )
            object.__setattr__(self, "positions", positions)
        if self.mask is not None and tuple(self.mask.shape) != shape[2:]:
            raise DataError(f"the detector mask is {self.mask.shape}, the patterns are {shape[2:]}")
        if self.probe is not None and tuple(self.probe.shape[-2:]) != shape[2:]:
            raise DataError(f"the probe is {self.probe.shape[-2:]}, the patterns are {shape[2:]}")

    # ---- what there is --------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(Ny, Nx, Ky, Kx)."""
        ny, nx, ky, kx = self.data.shape
        return ny, nx, ky, kx

    @property
    def scan_shape(self) -> tuple[int, int]:
        """(Ny, Nx)."""
        return self.shape[:2]

    @property
    def detector_shape(self) -> tuple[int, int]:
        """(Ky, Kx)."""
        return self.shape[2:]

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

    def without_truth(self) -> Self:
        """The measurement as a microscope gives it: nothing of what only a simulation knows."""
        return replace(self, truth=None, truth_atoms=None, truth_instrument=None)

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
            shape=self.scan_shape,
            step=self.calibration.scan_step,
            rotation=self.calibration.rotation,
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
            missing = [
                n
                for n, v in (("beam energy (kV)", c.energy), ("semi-angle (mrad)", c.semi_angle))
                if v is None
            ]
            raise DataError(f"the illumination is not known: {' and '.join(missing)} missing")
        return Optics(energy=c.energy, semi_angle=c.semi_angle, overfocus=0.0, C30=0.0)

    def counts(self, budget: int = 8 * 1024**3) -> NDArray[Any]:
        """All patterns in memory, (N, Ky, Kx), as they are kept: 8 or 16 bit integers, or float32.

        The same array for everybody who asks while it is in use: do not write to it.

        Raises
        ------
        MemoryError
            If they need more than `budget` bytes.
        """
        size = self.reading.nbytes
        if size > budget:
            raise MemoryError(
                f"the patterns need {size / 1e9:.1f} GB, more than the {budget / 1e9:.1f} GB "
                "allowed: crop or bin them"
            )
        return self.reading.counts()

    def patterns(self, budget: int = 8 * 1024**3) -> NDArray[np.float32]:
        """A copy of all patterns in memory, (N, Ky, Kx) float32.

        Raises
        ------
        MemoryError
            If they need more than `budget` bytes.
        """
        size = int(np.prod(self.shape)) * 4
        if size > budget:
            raise MemoryError(
                f"the patterns need {size / 1e9:.1f} GB, more than the {budget / 1e9:.1f} GB "
                "allowed: crop or bin them"
            )
        return self.counts(budget).astype(np.float32)

    def pattern(self, y: int, x: int) -> NDArray[Any]:
        """One pattern, (Ky, Kx)."""
        return np.asarray(self.data[y, x])

    def loaded(self, budget: int = MEMORY_BUDGET) -> Self:
        """The same dataset with its patterns in memory if they fit the budget, else itself."""
        if self.nbytes > budget:
            return self
        same = kept_type(self.data) == self.data.dtype
        data = self.counts().reshape(self.shape) if same else np.asarray(self.data)
        out = replace(self, data=data)
        out.reading.adopt(self.reading.seen)
        return out
