"""Frame: what every solver yields after a step."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..physics.optics import Optics


@dataclass(frozen=True)
class StepInfo:
    """More about a step than its loss; each family of solvers adds its own numbers.

    Attributes
    ----------
    stage : str
        What the solver is doing where it is not at its ordinary steps; for people.
    """

    stage: str = ""

    def numbers(self) -> dict[str, float | int | str]:
        """What can be listed or plotted: the fields that are numbers or words, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            k: v
            for k, v in values.items()
            if isinstance(v, (int, float, str)) and not isinstance(v, bool) and v != ""
        }


@dataclass(frozen=True)
class DescentInfo(StepInfo):
    """Of the ordinary solvers.

    Attributes
    ----------
    learning_rate : float or None
        Of this step.
    best_loss : float or None
        Smallest misfit over shot noise so far, where the solver keeps the best.
    held_out : float or None
        Misfit over shot noise of the positions that are held out of the fit.
    evaluations : int or None
        Of the gradient so far.
    """

    learning_rate: float | None = None
    best_loss: float | None = None
    held_out: float | None = None
    evaluations: int | None = None


@dataclass(frozen=True)
class RefineInfo(StepInfo):
    """Of solvers that refine the microscope with the volume.

    Attributes
    ----------
    probe : ndarray
        (M, Ky, Kx) complex64, centred, √electrons.
    positions : ndarray
        (N, 2), Å, on the canvas.
    held_out : float or None
        Misfit over shot noise of the positions that are held out of the fit.
    tilt : (y, x)
        Of the beam against the columns of atoms, mrad.
    background : float
        Electrons per pixel and pattern that are not of the specimen.
    optics : Optics or None
        What the probe's pixels mean, as far as they were read.
    source_size : float or None
        rms for each axis, Å, likewise.
    errors : dict
        One standard deviation of aberrations and source size, Å.
    moved : float or None
        How far positions are from where the run began, rms, Å.
    """

    held_out: float | None = None
    tilt: tuple[float, float] = (0.0, 0.0)
    background: float = 0.0
    optics: Optics | None = None
    source_size: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    moved: float | None = None
    probe: NDArray[np.complex64] = field(default_factory=lambda: np.zeros((0, 0, 0), np.complex64))
    positions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def numbers(self) -> dict[str, float | int | str]:
        """With C10 in Å, and the tilt in mrad along y and x."""
        out = {**super().numbers(), "tilt y": self.tilt[0], "tilt x": self.tilt[1]}
        return out if self.optics is None else {**out, "C10": self.optics.overfocus}

    def state(self) -> dict[str, Any]:
        """For a checkpoint: tensors and plain values only."""
        import torch

        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {n: torch.from_numpy(plain[n].copy()) for n in ("probe", "positions")}
        return plain | {"optics": None if self.optics is None else self.optics.model_dump_json()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RefineInfo:
        """The inverse of :meth:`state`."""
        optics = state["optics"]
        arrays = {n: state[n].numpy() for n in ("probe", "positions")}
        found = None if optics is None else Optics.model_validate_json(optics)
        return cls(**{**state, **arrays, "tilt": tuple(state["tilt"]), "optics": found})


@dataclass(frozen=True)
class Frame:
    """A solver's state after a step; immutable.

    Attributes
    ----------
    step, total : int
        Steps done, and steps planned.
    volume : ndarray
        Phase in rad, (D, H, W).
    loss : float
        Misfit relative to its shot-noise expectation: about 1 when the model explains the data.
    log_snr : float or None
        λ of a diffusion solver.
    seconds : float
        Since the start of the run (pauses included), with those of the run that it resumed.
    info : StepInfo
        More about the step.
    arrays : dict
        More volumes (D, H, W) of it, e.g. the x-prediction before guidance, or the spread of
        several samples.
    """

    step: int
    total: int
    volume: NDArray[np.float32]
    loss: float
    log_snr: float | None = None
    seconds: float = 0.0
    info: StepInfo = field(default_factory=StepInfo)
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)
