"""Volume: a phase volume with its voxel size, origin, unit and history; the one currency between
the floors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..base.hdf5 import VOLUME

Unit = Literal["rad", "V·Å"]

FORMAT = VOLUME
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Volume:
    """Phase (or projected potential) on a grid, slice 0 at the beam entrance.

    Parameters
    ----------
    array : ndarray
        (D, H, W) = (z, y, x), kept as float32.
    voxel_size : (dz, dy, dx)
        Å; dz is the mean slice thickness where slices differ.
    origin : (z, y, x)
        Å, position of voxel (0, 0, 0).
    unit : 'rad' or 'V·Å'
        Phase x = σ_e·V, or projected potential per slice.
    energy : float or None
        kV; needed to convert between the units.
    slice_thickness : tuple of D floats, optional
        Å, where slices differ.
    provenance : dict
        How the volume came about; JSON-serialisable.

    Raises
    ------
    ValueError
        If the array is not 3D and finite or a voxel size is not positive.
    """

    array: NDArray[np.float32]
    voxel_size: tuple[float, float, float] = (1.6, 0.2, 0.2)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    unit: Unit = "rad"
    energy: float | None = None
    slice_thickness: tuple[float, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        array = np.ascontiguousarray(self.array, dtype=np.float32)
        if array.ndim != 3 or 0 in array.shape:
            raise ValueError(f"a volume is (D, H, W), got an array of shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("the volume contains NaN or infinite values")
        if len(self.voxel_size) != 3 or not all(np.isfinite(v) and v > 0 for v in self.voxel_size):
            raise ValueError(
                f"the voxel size must be three positive lengths in Å, got {self.voxel_size}"
            )
        if self.unit not in ("rad", "V·Å"):
            raise ValueError(f"unit is 'rad' or 'V·Å', got {self.unit!r}")
        if self.slice_thickness is not None and len(self.slice_thickness) != array.shape[0]:
            raise ValueError(f"{array.shape[0]} slices need {array.shape[0]} thicknesses")
        object.__setattr__(self, "array", array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.array.shape  # type: ignore[return-value]

    @property
    def extent(self) -> tuple[float, float, float]:
        """Size of the box in Å, (z, y, x)."""
        return tuple(n * v for n, v in zip(self.shape, self.voxel_size, strict=True))  # type: ignore[return-value]

    def depth_sum(self) -> NDArray[np.float32]:
        """Sum over the slices, (H, W)."""
        return self.array.sum(axis=0)

    def to_unit(self, unit: Unit, energy: float | None = None) -> Volume:
        """The same volume in rad or V·Å.

        Raises
        ------
        ValueError
            If the conversion needs a beam energy and none is known.
        """
        if unit == self.unit:
            return self
        energy = energy or self.energy
        if energy is None:
            raise ValueError("converting between rad and V·Å needs the beam energy (kV)")
        from ..physics.optics import interaction_parameter

        sigma = interaction_parameter(energy)
        factor = 1 / sigma if unit == "V·Å" else sigma
        return replace(self, array=self.array * np.float32(factor), unit=unit, energy=energy)

    def crop(
        self, slices: slice = slice(None), y: slice = slice(None), x: slice = slice(None)
    ) -> Volume:
        """A part of the volume, its origin moved along; slices count from the beam entrance.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        starts = [s.indices(n) for s, n in zip((slices, y, x), self.shape, strict=True)]
        if any(step != 1 or stop <= start for start, stop, step in starts):
            raise ValueError(
                f"the region {slices}, {y}, {x} is empty in a volume of shape {self.shape}"
            )
        z0, y0, x0 = (
            o + s[0] * v for o, s, v in zip(self.origin, starts, self.voxel_size, strict=True)
        )
        thickness = None if self.slice_thickness is None else self.slice_thickness[slices]
        return replace(
            self, array=self.array[slices, y, x], origin=(z0, y0, x0), slice_thickness=thickness
        )

    # ---- HDF5, the format that keeps everything --------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write to HDF5; the file appears whole or not at all.

        Raises
        ------
        OSError
            If the disk is full or refuses; the process goes on.
        """
        from ..base.hdf5_writing import write_hdf5

        with write_hdf5(path) as (file, _):
            file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), FORMAT_VERSION
            data = file.create_dataset("volume", data=self.array, compression="gzip", shuffle=True)
            data.attrs["unit"], data.attrs["axes"] = self.unit, "zyx"
            data.attrs["voxel_size"], data.attrs["voxel_size_unit"] = self.voxel_size, "Å"
            data.attrs["origin"] = self.origin
            if self.energy is not None:
                data.attrs["energy"], data.attrs["energy_unit"] = self.energy, "kV"
            if self.slice_thickness is not None:
                data.attrs["slice_thickness"] = self.slice_thickness
            file.attrs["provenance"] = json.dumps(self.provenance, default=str)

    @classmethod
    def load(cls, path: str | Path) -> Volume:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not such a volume.
        NoAnswer
            If the drive does not answer in time.
        """
        import h5py

        from ..base.hdf5 import NoAnswer, guard_hdf5

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        try:
            guard_hdf5(path)
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") not in (FORMAT, FORMAT.encode()):
                    raise ValueError(
                        f"{path.name} is not a mepdiff volume (no '{FORMAT}' mark in it)"
                    )
                if int(file.attrs["version"]) > FORMAT_VERSION:
                    raise ValueError(
                        f"{path.name} was written by a newer version of napari-mepdiff"
                    )
                data = file["volume"]
                a = dict(data.attrs)
                return cls(
                    data[...],
                    tuple(map(float, a["voxel_size"])),  # type: ignore[arg-type]
                    tuple(map(float, a["origin"])),  # type: ignore[arg-type]
                    str(a["unit"]),  # type: ignore[arg-type]
                    float(a["energy"]) if "energy" in a else None,
                    tuple(map(float, a["slice_thickness"])) if "slice_thickness" in a else None,
                    json.loads(file.attrs["provenance"]),
                )
        except NoAnswer:
            raise
        except (OSError, KeyError, TypeError, UnicodeDecodeError, RuntimeError) as error:
            raise ValueError(f"{path.name} cannot be read as a volume: {error}") from error
