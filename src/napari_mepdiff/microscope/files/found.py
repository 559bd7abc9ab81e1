"""What was read of another package's result, and the state that it makes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...base.records import plain
from ...physics.optics import Optics
from ..state import MicroscopeState

if TYPE_CHECKING:
    import h5py

OWN = "mepdiff_microscope"  # dataset at the root: what the other package has no place for
_FITTED = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b", "semi_angle", "soft_edge")
_WORST = 1.0  # rad rms: beyond that, aberrations do not describe a phase


@dataclass(frozen=True)
class Found:
    """Numbers of a result file, in units and signs of this program.

    Attributes
    ----------
    made_by : str
        Which package.
    probe : ndarray
        (M, Ky, Kx), complex, centred.
    positions : ndarray
        (N, 2), Å, (y, x), from a corner of that package's canvas.
    pixel_size : (dy, dx)
        Å.
    energy : float
        kV.
    tilt : (y, x)
        mrad, of the beam.
    told : Optics or None
        What that package was told of the lens.
    notes : tuple of str
        What a user should know of this file.
    own : dict
        What :func:`beside` wrote; empty in files that the other package made.
    """

    made_by: str
    probe: NDArray[Any]
    positions: NDArray[np.float64]
    pixel_size: tuple[float, float]
    energy: float
    tilt: tuple[float, float] = (0.0, 0.0)
    told: Optics | None = None
    notes: tuple[str, ...] = ()
    own: dict[str, Any] = field(default_factory=dict)

    def state(self, name: str, scan: NDArray[np.float64] | None = None) -> MicroscopeState:
        """The state, with the optics that the probe shows.

        Parameters
        ----------
        name : str
            Of the file.
        scan : ndarray, optional
            (N, 2), Å, see :func:`napari_mepdiff.microscope.files.load_microscope`.
        """
        own = self.own
        provenance: dict[str, Any] = own.get("provenance") or self._provenance(name)
        origin = own.get("origin")
        state = MicroscopeState(
            self.probe,
            self.positions + np.array(origin) if origin else _placed(self.positions, scan),
            self.pixel_size,
            self.energy,
            provenance,
            self.tilt,
            float(own.get("background", 0.0)),
        )
        if not own:
            return _with_optics(state, self.told)
        optics = own.get("optics")
        return replace(
            state,
            optics=None if optics is None else Optics.model_validate(optics),
            source_size=own.get("source_size"),
            errors=own.get("errors", {}),
        )

    def _provenance(self, name: str) -> dict[str, Any]:
        out: dict[str, Any] = {"made_by": self.made_by, "file": name}
        if self.told is not None:
            out["told"] = self.told.model_dump(mode="json")
        return {**out, "notes": list(self.notes)} if self.notes else out


def beside(state: MicroscopeState, corner: NDArray[np.float64]) -> NDArray[np.uint8]:
    """What another package's file has no place for, as JSON in bytes.

    Parameters
    ----------
    corner : ndarray
        (y, x), Å: where that package's positions count from, in the frame of the scan.
    """
    kept = {
        "origin": [float(v) for v in corner],
        "background": state.background,
        "optics": None if state.optics is None else state.optics.model_dump(mode="json"),
        "source_size": state.source_size,
        "errors": state.errors,
        "provenance": state.provenance,
    }
    text = json.dumps(plain(kept), default=str, ensure_ascii=False)
    return np.frombuffer(text.encode(), np.uint8)


def own_part(file: h5py.File) -> dict[str, Any]:
    """What :func:`beside` wrote; empty where there is none.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if OWN not in file:
        return {}
    found = json.loads(file[OWN][...].tobytes())
    if not isinstance(found, dict):
        raise ValueError(f"'{OWN}' is damaged")
    return found


def told_optics(state: MicroscopeState) -> Optics | None:
    """What the package that made a file was told of the lens; None where the file does not say."""
    kept = state.provenance.get("told") or state.provenance.get("optics")
    try:
        return None if kept is None else Optics.model_validate(kept)
    except ValueError:  # written by another version
        return None


def _placed(
    positions: NDArray[np.float64], scan: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Mean on mean with the scan; without one, the smallest y and x are 0."""
    if scan is not None and scan.shape == positions.shape:
        return positions - positions.mean(axis=0) + scan.mean(axis=0)
    return positions - positions.min(axis=0)


def _with_optics(state: MicroscopeState, told: Optics | None) -> MicroscopeState:
    """With optics, source size and errors as the probe's pixels show them, as far as they do."""
    import torch

    from ...physics.probe_fit import fit_optics

    near = told or Optics(energy=state.energy, overfocus=0.0, C30=0.0)
    coherent = len(state.probe) == 1
    names = [*_FITTED, *([] if coherent else ["source_size"])]
    try:
        fit = fit_optics(torch.from_numpy(state.probe), near, state.pixel_size, names)
    except (ValueError, RuntimeError):  # no aperture to read in
        return state
    if not fit.residual < _WORST:
        return state
    return replace(
        state,
        optics=fit.optics,
        source_size=None if coherent else fit.source_size,
        errors={name: e for name, e in fit.uncertainties.items() if math.isfinite(e)},
    )
