"""Problem: a measurement with its geometry and probe, ready for any solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..measurement.checks import require_known, require_valid
from ..measurement.dataset import DataError, FourDSTEM
from ..measurement.reading import kept_type
from ..measurement.values import empty_patterns
from ..microscope.state import MicroscopeState
from ..physics.likelihood import Likelihood
from ..physics.loss import LikelihoodFunction
from ..physics.misfit import Misfit
from ..physics.optics import Optics, probe_from_parameters
from ..physics.propagation import PropagatorKind
from ..physics.scan import Boundary
from ..specimen.volume import Volume
from .assumptions import (
    DEFAULT_THICKNESS,
    canvas_of,
    electrons_per_pattern,
    few_patterns,
    first_plane,
    propagated,
    refined_positions,
    slicing,
    unit_probe,
)
from .frame import RefineInfo


@dataclass(frozen=True)
class Problem:
    """What is measured and how, in the arrays that the physics takes.

    Attributes
    ----------
    patterns : ndarray
        (N, Ky, Kx), electrons, DC-centred; 8 or 16 bit integers or float32, as they were recorded,
        and shared by all problems on the same data: do not write to it.
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
    together : int
        Slices that the physics takes as one.
    energy : float
        kV.
    scan, scan_index : ndarray, optional
        Where all positions of the scan lie on the canvas, (N', 2), and which of them the patterns
        are; dropped frames are left out.
    optics : Optics or None
        What the probe was made from; None where it was given as it is.
    told : Optics or None
        As the file or an earlier run says, whether the probe was made from it or not.
    source_size : float or None
        rms for each axis, Å, as an earlier run read it off its probe.
    tilt : (y, x)
        Of the beam, mrad, as an earlier run found it.
    background : float
        Electrons per pixel and pattern that are not of the specimen, likewise.
    findings : tuple of str
        What is doubtful about the measurement, as validation says it.
    """

    patterns: NDArray[Any]
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
    together: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)
    scan: NDArray[np.float64] | None = None
    scan_index: NDArray[np.int64] | None = None
    findings: tuple[str, ...] = ()
    optics: Optics | None = None
    told: Optics | None = None
    source_size: float | None = None
    tilt: tuple[float, float] = (0.0, 0.0)
    background: float = 0.0

    @classmethod
    def from_data(
        cls,
        data: FourDSTEM,
        *,
        slices: int | None = None,
        slice_thickness: float | Sequence[float] | None = None,
        together: int = 1,
        probe: Tensor | NDArray[np.complex64] | None = None,
        optics: Optics | None = None,
        microscope: MicroscopeState | None = None,
        modes: int = 1,
        band_limit: float | str | None = "data",
        propagator: PropagatorKind = "fresnel",
        margin: float = 0.0,
        device: str = "cpu",
        budget: int = 8 * 1024**3,
        check: bool = True,
        load: bool = True,
        position: tuple[int, int] | None = None,
    ) -> Problem:
        """From a measurement. Ground truth that it may hold has no part in this.

        Parameters
        ----------
        slices, slice_thickness : int, float or D floats, optional
            D and Å; see :func:`slicing` for what is taken where they are not given.
        together : int
            Slices that the physics takes as one, see :mod:`~napari_mepdiff.physics.grouping`.
        probe : array, optional
            Complex (M, Ky, Kx), centred; else the microscope state's, the data's own, or one made
            from the optics.
        optics : Optics, optional
            Overrides the data's.
        microscope : MicroscopeState, optional
            Refined probe and positions of an earlier run on the same scan.
        modes : int
            Incoherent modes of a probe made from optics.
        band_limit : float, None or 'data'
            'data': as the data say (simulations), else off.
        margin : float
            Å by which positions may move in a run: so much wider is an extended canvas each way.
        device : str
            Where the physics runs.
        budget : int
            Bytes that the patterns may take.
        check : bool
            Validate the data first.
        load : bool
            False: the average pattern stands in for all, which suffices for geometry and
            estimates and reads next to nothing.
        position : (y, x), optional
            Only the pattern of this scan position: to model one without loading all.

        Raises
        ------
        DataError
            If the data are not fit for a reconstruction, with the reasons.
        MemoryError
            If the patterns do not fit the budget.
        """
        if optics is not None:
            data = replace(data, optics=optics)
        whole = load and position is None
        if check:
            require_known(data)
        # loading makes the summary on the way, so that a file is gone through once
        counts = data.counts(budget) if whole else None
        findings: tuple[str, ...] = ()
        if check and whole:
            findings = tuple(f.message for f in require_valid(data))
        pixel, window = data.real_pixel, data.detector_shape
        thickness = slicing(data.calibration, slices, slice_thickness)
        plane = first_plane(thickness, together)
        scan = data.scan_positions()
        nominal = scan
        if microscope is not None:  # the canvas is that of both, so that volumes of both fit
            scan = refined_positions(microscope, data)
        canvas, moved = canvas_of(data, np.concatenate([nominal, scan]), margin)
        origin, places = nominal[0] - moved[0], moved[len(nominal) :]
        index = np.arange(len(places))
        seen = data.reading.seen or (few_patterns(data) if not load else data.reading.summary())
        dropped = empty_patterns(seen).ravel() if load else np.zeros(len(places), bool)
        if position is not None:
            index = np.atleast_1d(np.ravel_multi_index(position, data.scan_shape))
            patterns: NDArray[Any] = data.pattern(*position)[None]
        elif counts is None:
            mean = seen.pacbed.astype(kept_type(data.data))
            patterns = np.broadcast_to(mean, (len(places), *window))
        elif dropped.any():
            patterns, index = counts[~dropped], np.flatnonzero(~dropped)
        else:
            patterns = counts
        illumination = data.illumination()
        known = probe if probe is not None else microscope.probe if microscope else data.probe
        deeper = plane - thickness[0] / 2  # than what is told of the probe holds
        if microscope is not None and probe is None:
            deeper = 0.0 if microscope.plane is None else plane - microscope.plane
        if known is None:
            focus = illumination.overfocus + deeper
            illumination = illumination.model_copy(update={"overfocus": focus})
            wave = probe_from_parameters(illumination, window, pixel, modes=modes)
        else:
            wave = unit_probe(known, window)
            tilt = microscope.tilt if microscope is not None else (0.0, 0.0)
            wave = propagated(wave, pixel, deeper, illumination.wavelength, tilt)
        provenance: dict[str, Any] = {
            "data": data.provenance,
            "calibration": data.calibration.model_dump(mode="json"),
            "optics": illumination.model_dump(mode="json"),
        }
        if dropped.any():
            empty = np.argwhere(dropped.reshape(data.scan_shape)).tolist()
            provenance["left_out"] = {"why": "patterns without a count", "positions": empty}
        if findings:
            provenance["findings"] = list(findings)
        if microscope is not None:
            provenance["microscope"] = microscope.provenance
        # counts of the background are not of the probe
        background = microscope.background if microscope is not None else 0.0
        electrons = electrons_per_pattern(data, seen) - background * window[0] * window[1]
        if not electrons > 0:
            raise DataError("the refined background is more than all counts: is it of these data?")
        return cls(
            patterns=patterns,
            probe=wave * electrons**0.5,
            positions=places[index],
            shape=(len(thickness), *canvas),
            voxel_size=(float(np.mean(thickness)), *pixel),
            slice_thickness=thickness,
            energy=illumination.energy,
            boundary=data.boundary,
            mask=data.mask,
            band_limit=data.band_limit if band_limit == "data" else band_limit,  # type: ignore[arg-type]
            propagator=propagator,
            origin=(0.0, float(origin[0]), float(origin[1])),
            device=device,
            together=together,
            provenance=provenance,
            scan=places,
            scan_index=index,
            findings=findings,
            optics=illumination if known is None else None,
            told=illumination if microscope is None else microscope.optics or illumination,
            source_size=microscope.source_size if microscope is not None else None,
            tilt=microscope.tilt if microscope is not None else (0.0, 0.0),
            background=background,
        )

    def released(self) -> Problem:
        """The same geometry and probe without the patterns, for a run that has ended."""
        nothing = np.broadcast_to(np.zeros((), np.float32), self.patterns.shape)
        return replace(self, patterns=nothing)

    def position_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest (y, x) in Å whose windows lie on an extended canvas.

        Without bounds (−∞, ∞) where the canvas is periodic.
        """
        if self.boundary == "periodic":
            return np.full(2, -np.inf), np.full(2, np.inf)
        pixel, canvas = np.array(self.voxel_size[1:]), np.array(self.shape[1:])
        window = np.array(self.patterns.shape[1:])
        # the corner is round(position / pixel) − window // 2
        low, high = window // 2, canvas - window + window // 2
        inside = 0.49  # of a pixel: short of the next corner
        return (low - inside) * pixel, (high + inside) * pixel

    def microscope(self, found: RefineInfo, **provenance: Any) -> MicroscopeState:
        """What a run refined on this problem, for the next one."""
        places = np.asarray(found.positions, np.float64)
        if self.scan is not None and self.scan_index is not None:
            places = self.scan.copy()  # what was left out stays where it was
            places[self.scan_index] = found.positions
        return MicroscopeState(
            found.probe,
            places + np.array(self.origin[1:]),
            self.voxel_size[1:],
            self.energy,
            {**self.provenance, **provenance},
            found.tilt,
            found.background,
            found.optics,
            found.source_size,
            found.errors,
            self.plane,
        )

    @property
    def plane(self) -> float:
        """Å below the entrance surface where the first phases act, and the probe is meant."""
        return first_plane(self.slice_thickness, self.together)

    @property
    def told_here(self) -> Optics | None:
        """What is told of the probe, with the defocus at :attr:`plane`."""
        if self.optics is not None or self.told is None:
            return self.optics
        focus = self.told.overfocus + self.plane - DEFAULT_THICKNESS / 2
        return self.told.model_copy(update={"overfocus": focus})

    @property
    def electrons(self) -> float:
        """Electrons per pattern that the probe carries."""
        return float(self.probe.abs().square().sum())

    def likelihood(
        self,
        misfit: Misfit = "intensity",
        *,
        engine: str = "own",
        detector_stride: int = 1,
        memory: int = 2 * 1024**3,
        probe: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> LikelihoodFunction:
        """The physics of this problem.

        Parameters
        ----------
        engine : 'own' or 'ptyrad'
            PtyRAD's has the exact propagator, no band limit and no detector stride.
        """
        common: dict[str, Any] = {
            "pixel_size": self.voxel_size[1:],
            "slice_thickness": self.slice_thickness,
            "energy": self.energy,
            "boundary": self.boundary,
            "misfit": misfit,
            "mask": self.mask,
            "device": self.device,
        }
        wave = self.probe if probe is None else probe
        if engine == "ptyrad":
            from ..physics.engines.ptyrad import PtyRADLikelihood

            if detector_stride != 1:
                raise ValueError("the PtyRAD engine has no detector stride")
            if self.together != 1:
                raise ValueError("the PtyRAD engine takes every slice by itself: choose our own")
            if self.background:
                raise ValueError("the PtyRAD engine knows no background: choose our own engine")
            patterns = self.patterns.astype(np.float32, copy=False)
            theirs = PtyRADLikelihood(patterns, wave, self.positions, self.shape, **common)
            if any(self.tilt) and self.shape[0] > 1:
                theirs.set_gaps(tilt=self.tilt)
            return theirs
        if engine != "own":
            raise ValueError(f"engine is 'own' or 'ptyrad', got {engine!r}")
        own = Likelihood(
            self.patterns,
            wave,
            self.positions,
            self.shape,
            band_limit=self.band_limit,
            propagator=self.propagator,
            together=self.together,
            detector_stride=detector_stride,
            memory=memory,
            dtype=dtype,
            **common,
        )
        if any(self.tilt) and own.model.slices > 1:
            own.set_gaps(tilt=self.tilt)
        if self.background:
            own.set_detector(background=self.background)
        return own

    def volume(self, array: NDArray[np.float32], **provenance: Any) -> Volume:
        """A solver's array as a Volume in place, with its history."""
        equal = len(set(self.slice_thickness)) == 1
        return Volume(
            array,
            self.voxel_size,
            self.origin,
            "rad",
            self.energy,
            None if equal else self.slice_thickness,
            {**self.provenance, **provenance},
        )
