"""What a reconstruction found of the microscope: kept in a file, used by the next run.

Layout of the file (HDF5, version 3; version 1 has neither tilt nor background, version 2 no
optics)::

    /            attrs: format b"mepdiff-microscope", version, energy (kV), pixel_size (dy, dx) (Å),
                 tilt (y, x) (mrad), background (electrons per pixel and pattern)
    /optics      UTF-8 JSON as bytes: optics, source_size (Å), errors, plane (Å)
    /probe       (M, Ky, Kx) complex64, centred, √electrons
    /positions   (N, 2) float64, Å, (y, x), in the frame of the scan
    /provenance  UTF-8 JSON as bytes
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.hdf5 import guard_hdf5
from ..base.hdf5_writing import write_hdf5
from ..base.records import plain
from ..physics.optics import Optics

FORMAT, VERSION = "mepdiff-microscope", 3


@dataclass(frozen=True)
class MicroscopeState:
    """What the microscope really did, as far as it was refined.

    Parameters
    ----------
    probe : ndarray
        (M, Ky, Kx) complex, centred, √electrons; modes are incoherent.
    positions : ndarray
        (N, 2), Å, (y, x), in the frame of the scan: one for each pattern of the measurement.
    pixel_size : (dy, dx)
        Of the probe's window, Å.
    energy : float
        kV.
    tilt : (y, x)
        Of the beam against the columns of atoms, mrad.
    background : float
        Electrons per pixel and pattern that are not of the specimen.
    provenance : dict
        Which run on which data this comes from.
    optics : Optics or None
        What the probe's pixels mean: aperture and aberrations; None where they were not read.
    source_size : float or None
        rms for each axis, Å, likewise.
    errors : dict
        One standard deviation of C10, C12a, C12b … and source_size, Å, as far as they are known.
    plane : float or None
        Å below the entrance surface where the probe is meant; None where that is not known. C10 of
        the optics is that at the entrance, as for slices of 1.6 Å.

    Raises
    ------
    ValueError
        If a value cannot be what it is said to be.
    """

    probe: NDArray[np.complex64]
    positions: NDArray[np.float64]
    pixel_size: tuple[float, float]
    energy: float
    provenance: dict[str, Any] = field(default_factory=dict)
    tilt: tuple[float, float] = (0.0, 0.0)
    background: float = 0.0
    optics: Optics | None = None
    source_size: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    plane: float | None = None

    def __post_init__(self) -> None:
        probe = np.asarray(self.probe)
        probe = probe if probe.ndim == 3 else probe[None]
        positions = np.asarray(self.positions, dtype=np.float64)
        if probe.ndim != 3 or not np.iscomplexobj(probe) or 0 in probe.shape:
            raise ValueError(
                f"a probe is complex, (modes, Ky, Kx); got {probe.dtype} {probe.shape}"
            )
        if not np.isfinite(probe).all() or not np.abs(probe).any():
            raise ValueError("the probe is empty, or contains NaN or infinite values")
        if positions.ndim != 2 or positions.shape[1] != 2 or not np.isfinite(positions).all():
            raise ValueError(f"positions are finite, (N, 2) as (y, x); got {positions.shape}")
        size = tuple(float(v) for v in self.pixel_size)
        if len(size) != 2 or not all(np.isfinite(v) and v > 0 for v in size):
            raise ValueError(f"the pixel size must be two positive lengths in Å, got {size}")
        if not (np.isfinite(self.energy) and self.energy > 0):
            raise ValueError(f"the energy must be positive, in kV; got {self.energy}")
        tilt = tuple(float(v) for v in self.tilt)
        if len(tilt) != 2 or not all(np.isfinite(v) and abs(v) <= 200 for v in tilt):
            raise ValueError(f"a tilt is (y, x) in mrad, each up to 200; got {tilt}")
        if not (np.isfinite(self.background) and self.background >= 0):
            raise ValueError(f"a background is in electrons, ≥ 0; got {self.background}")
        object.__setattr__(self, "tilt", tilt)
        object.__setattr__(self, "background", float(self.background))
        object.__setattr__(self, "probe", probe.astype(np.complex64))
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "pixel_size", size)
        object.__setattr__(self, "energy", float(self.energy))

    @property
    def electrons(self) -> float:
        """Electrons per pattern that the probe carries."""
        return float((np.abs(self.probe).astype(np.float64) ** 2).sum())

    def _read(self) -> dict[str, Any]:
        """What was read off the probe, for JSON."""
        optics = None if self.optics is None else self.optics.model_dump(mode="json")
        return {
            "optics": optics,
            "source_size": self.source_size,
            "errors": self.errors,
            "plane": self.plane,
        }

    def save(self, path: str | Path) -> None:
        """Write the state as HDF5; the file appears whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written (no such folder, disk full).
        """
        with write_hdf5(path) as (file, _check):
            file.create_dataset("probe", data=self.probe)
            file.create_dataset("positions", data=self.positions)
            text = json.dumps(plain(self.provenance), default=str, ensure_ascii=False).encode()
            file.create_dataset("provenance", data=np.frombuffer(text, np.uint8))
            read = json.dumps(plain(self._read())).encode()
            file.create_dataset("optics", data=np.frombuffer(read, np.uint8))
            file.attrs["energy"], file.attrs["pixel_size"] = self.energy, self.pixel_size
            file.attrs["tilt"], file.attrs["background"] = self.tilt, self.background
            file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION

    @classmethod
    def load(cls, path: str | Path) -> MicroscopeState:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it holds no whole state; the message says which.
        """
        import h5py

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        guard_hdf5(path)
        try:
            with h5py.File(path, "r") as file:
                mark = file.attrs.get("format", b"")
                mark = mark.decode() if isinstance(mark, bytes) else str(mark)
                if mark != FORMAT:
                    raise ValueError("it holds no refined probe and positions")
                if int(file.attrs["version"]) > VERSION:
                    raise ValueError("it was written by a newer napari-mepdiff: update this one")
                read = json.loads(file["optics"][...].tobytes()) if "optics" in file else {}
                optics = read.get("optics")
                step = tuple(float(v) for v in file.attrs["pixel_size"])
                return cls(
                    file["probe"][...],
                    file["positions"][...],
                    (step[0], step[1]),
                    float(file.attrs["energy"]),
                    json.loads(file["provenance"][...].tobytes()),
                    tuple(float(v) for v in file.attrs.get("tilt", (0.0, 0.0))),  # type: ignore[arg-type]
                    float(file.attrs.get("background", 0.0)),
                    None if optics is None else Optics.model_validate(optics),
                    read.get("source_size"),
                    read.get("errors", {}),
                    read.get("plane"),
                )
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path.name} cannot be used as a microscope state: {said}") from error
