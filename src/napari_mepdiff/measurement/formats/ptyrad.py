"""PtyRAD results (``model_iterNNNN.hdf5``): volumes and probes; they hold no patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...base.hdf5 import NoAnswer, guard_hdf5
from ...specimen.volume import Volume
from .common import ReadError


def is_ptyrad_result(path: Path) -> bool:
    """Whether an HDF5 file is a PtyRAD result, by its content."""
    with h5py.File(path, "r") as file:
        return "optimizable_tensors" in file


def read_ptyrad_result(path: str | Path) -> Volume:
    """The phase of a PtyRAD result (``model_iterNNNN.hdf5``) as a Volume in rad.

    Object modes are averaged by their occupancy.

    Raises
    ------
    FileNotFoundError, ReadError
        If there is no such file, or it is no whole PtyRAD result.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        guard_hdf5(path)
        with h5py.File(path, "r") as file:
            tensors, attributes = file["optimizable_tensors"], file.get("model_attributes", {})
            phase = np.asarray(tensors["objp"][...], dtype=np.float32)
            if phase.ndim != 4:
                raise ReadError(
                    f"{path.name}: the object has shape {phase.shape}, not (modes, z, y, x)"
                )
            share = _number(attributes, "omode_occu")
            weights = (
                np.ones(phase.shape[0]) / phase.shape[0]
                if share is None or share.size != phase.shape[0]
                else share
            )
            dx, dz = _number(attributes, "dx"), _number(attributes, "slice_thickness")
            if dz is None and "slice_thickness" in tensors:
                dz = np.asarray(tensors["slice_thickness"][...], dtype=float).ravel()
            if dx is None or dz is None:
                raise ReadError(f"{path.name} does not say its pixel size (dx) and slice thickness")
            array = np.tensordot(weights.ravel() / weights.sum(), phase, axes=1)
            lam = _number(attributes, "lambd")
            return Volume(
                array,
                (float(dz.mean()), float(dx.flat[0]), float(dx.flat[0])),
                provenance={
                    "made_by": "PtyRAD",
                    "file": path.name,
                    "wavelength": None if lam is None else float(lam.flat[0]),
                },
            )
    except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, (ReadError, NoAnswer)):
            raise
        raise ReadError(f"{path.name} is no whole PtyRAD result: {error}") from error


def ptyrad_probe(path: Path) -> NDArray[np.complex64]:
    """The probe (modes, Ky, Kx) of a PtyRAD result; stored complex or as (…, 2) floats.

    Today's layout, or the coming one (``ptyrad_schema`` 2).
    """
    with h5py.File(path, "r") as file:
        new = "components/probe/tensors/modes"
        probe: NDArray[Any] = file[new if new in file else "optimizable_tensors/probe"][...]
    if not np.iscomplexobj(probe):
        probe = probe[..., 0] + 1j * probe[..., 1]
    return probe.astype(np.complex64)


def _number(group: Any, key: str) -> NDArray[np.float64] | None:
    if key not in group:
        return None
    value = group[key][()]
    if isinstance(value, (bytes, str)):  # "__NONE__"
        return None
    return np.asarray(value, dtype=float)
