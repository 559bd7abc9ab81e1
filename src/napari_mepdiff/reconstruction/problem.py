"""Problem: a measurement with its geometry and probe, ready for any solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..measurement.dataset import DataError, FourDSTEM
from ..measurement.validation import require_valid
from ..physics.likelihood import Likelihood, LikelihoodFunction, Misfit
from ..physics.multislice import PropagatorKind
from ..physics.optics import Optics, probe_from_parameters
from ..physics.scan import Boundary, canvas_shape
from ..specimen.volume import Volume


@dataclass(frozen=True)
class Problem:
    """What is measured and how, in the arrays that the physics takes.

    Attributes
    ----------
    patterns : ndarray
        (N, Ky, Kx) float32, electrons, DC-centred.
    probe : Tensor
        (M, Ky, Kx) complex64, centred, √electrons.
    positions : ndarray
        (N, 2), Å, on the canvas.
    shape : (D, H, W)
        Voxels to reconstruct.
    voxel_size : (dz, dy, dx)
        Å.
    slice_thickness : tuple of D floats
        Å.
    energy : float
        kV.
    """

    patterns: NDArray[np.float32]
    probe: Tensor
    positions: NDArray[np.float64]
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    slice_thickness: tuple[float, ...]
    energy: float
    boundary: Boundary
    mask: NDArray[np.float32] | None = None
    band_limit: float | None = None
    propagator: PropagatorKind = "fresnel"
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    device: str = "cpu"
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_data(
        cls,
        data: FourDSTEM,
        *,
        slices: int | None = None,
        slice_thickness: float | Sequence[float] | None = None,
        probe: Tensor | NDArray[np.complex64] | None = None,
        optics: Optics | None = None,
        modes: int = 1,
        band_limit: float | str | None = "data",
        propagator: PropagatorKind = "fresnel",
        device: str = "cpu",
        budget: int = 8 * 1024**3,
        check: bool = True,
    ) -> Problem:
        """From a measurement.

        Parameters
        ----------
        slices : int, optional
            D; that of the ground truth, or 8.
        slice_thickness : float or D floats, optional
            Å; that of the ground truth, or 1.6.
        probe : array, optional
            Complex (M, Ky, Kx), centred; else the data's own, else from the optics.
        optics : Optics, optional
            Overrides the data's.
        modes : int
            Incoherent modes of a probe made from optics.
        band_limit : float, None or 'data'
            'data': as the data say (simulations), else off.
        device : str
            Where the physics runs.
        budget : int
            Bytes that the patterns may take.
        check : bool
            Validate the data first.

        Raises
        ------
        DataError
            If the data are not fit for a reconstruction, with the reasons.
        MemoryError
            If the patterns do not fit the budget.
        """
        if check:
            require_valid(data)
        pixel = data.real_pixel
        truth = data.truth
        if slices is None:
            slices = truth.shape[0] if truth is not None else 8
        if slice_thickness is None:
            slice_thickness = truth.voxel_size[0] if truth is not None else 1.6
        thickness = (
            (float(slice_thickness),) * slices
            if isinstance(slice_thickness, (int, float))
            else tuple(map(float, slice_thickness))
        )
        if slices < 1 or len(thickness) != slices or not min(thickness) > 0:
            raise DataError(f"{slices} slices and a thickness of {slice_thickness} Å do not fit together")
        positions = data.scan_positions()
        window = data.detector_shape
        if data.boundary == "periodic":
            if data.canvas is None:
                raise DataError("periodic data need to say their field in voxels (canvas)")
            canvas, origin = data.canvas, np.zeros(2)
        else:
            canvas, moved = canvas_shape(positions, pixel, window)
            origin, positions = positions[0] - moved[0], moved
        patterns = data.patterns(budget)
        weight = 1.0 if data.mask is None else data.mask
        electrons = float((patterns * weight).sum(axis=(1, 2), dtype=np.float64).mean())
        sent = data.provenance.get("electrons_per_pattern")
        if sent is not None and not data.provenance.get("steps"):
            electrons = float(sent)
        illumination = optics or data.illumination()
        chosen = probe if probe is not None else data.probe
        if chosen is None:
            wave = probe_from_parameters(illumination, window, pixel, modes=modes)
        else:
            wave = torch.as_tensor(chosen).to(torch.complex64)
            wave = wave if wave.ndim == 3 else wave[None]
            if tuple(wave.shape[1:]) != window:
                raise DataError(f"the probe is {tuple(wave.shape[1:])} px, the patterns are {window}")
            wave = wave / wave.abs().square().sum().sqrt()
        return cls(
            patterns=patterns,
            probe=wave * electrons**0.5,
            positions=positions,
            shape=(slices, *canvas),
            voxel_size=(float(np.mean(thickness)), *pixel),
            slice_thickness=thickness,
            energy=illumination.energy,
            boundary=data.boundary,
            mask=data.mask,
            band_limit=data.band_limit if band_limit == "data" else band_limit,  # type: ignore[arg-type]
            propagator=propagator,
            origin=(0.0, float(origin[0]), float(origin[1])),
            device=device,
            provenance={"data": data.provenance, "calibration": data.calibration.model_dump(mode="json"),
                        "optics": illumination.model_dump(mode="json")},
        )

    @property
    def electrons(self) -> float:
        """Electrons per pattern that the probe carries."""
        return float(self.probe.abs().square().sum())

    def likelihood(
        self, misfit: Misfit = "intensity", *, engine: str = "own", detector_stride: int = 1,
        memory: int = 2 * 1024**3, probe: Tensor | None = None, dtype: torch.dtype = torch.float32,
    ) -> LikelihoodFunction:
        """The physics of this problem.

        Parameters
        ----------
        engine : 'own' or 'ptyrad'
            PtyRAD's has the exact propagator, no band limit and no detector stride.
        """
        common: dict[str, Any] = {
            "pixel_size": self.voxel_size[1:], "slice_thickness": self.slice_thickness, "energy": self.energy,
            "boundary": self.boundary, "misfit": misfit, "mask": self.mask, "device": self.device,
        }
        wave = self.probe if probe is None else probe
        if engine == "ptyrad":
            from ..physics.ptyrad import PtyRADLikelihood

            if detector_stride != 1:
                raise ValueError("the PtyRAD engine has no detector stride")
            return PtyRADLikelihood(self.patterns, wave, self.positions, self.shape, **common)
        if engine != "own":
            raise ValueError(f"engine is 'own' or 'ptyrad', got {engine!r}")
        return Likelihood(
            self.patterns, wave, self.positions, self.shape, band_limit=self.band_limit, propagator=self.propagator,
            detector_stride=detector_stride, memory=memory, dtype=dtype, **common,
        )

    def volume(self, array: NDArray[np.float32], **provenance: Any) -> Volume:
        """A solver's array as a Volume in place, with its history."""
        equal = len(set(self.slice_thickness)) == 1
        return Volume(
            array, self.voxel_size, self.origin, "rad", self.energy,
            None if equal else self.slice_thickness, {**self.provenance, **provenance},
        )
