"""What a likelihood takes as given in one call, and what may be replaced between two: probe,
positions, thickness and tilt, detector."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .detector import Detector
from .engines.engine import Engine
from .engines.torch import TorchEngine
from .grouping import Grouping
from .multislice import Multislice
from .patterns import Patterns, every_second
from .scan import Boundary, Windows


class Experiment:
    """The replaceable part of :class:`~napari_mepdiff.physics.likelihood.Likelihood`, which puts
    all of this in place.

    Nothing that does not change is made anew: buffers and plans of transforms stay.
    """

    shape: tuple[int, int, int]
    pixel_size: tuple[float, float]
    detector_stride: int
    memory: int
    device: torch.device
    real_dtype: torch.dtype
    complex_dtype: torch.dtype
    model: Multislice
    grouping: Grouping
    data: Patterns
    spectrum: Tensor
    """Of the probe, DC in the corner."""
    _probe: Tensor
    _places: NDArray[np.float64]
    _boundary: Boundary

    @functools.cached_property
    def engine(self) -> Engine:
        """What does the arithmetic: FFTW and compiled passes on CPU cores in float32, else
        torch."""
        modes = len(self._probe)
        if self.device.type == "cpu" and self.real_dtype == torch.float32:
            from .engines.cores import CpuEngine

            return CpuEngine(self.model, self.data, modes, memory=self.memory)
        return TorchEngine(self.model, self.data, modes, memory=self.memory)

    # ---- probe and positions ---------------------------------------------------------------------
    @property
    def probe(self) -> Tensor:
        """Probe (M, Ky, Kx), centred, √electrons. Of half the size with detector stride 2."""
        return self._probe

    def set_probe(self, probe: Tensor) -> None:
        """Replace the probe; same shape and units as at the start (half window with detector stride
        2)."""
        window = self.model.windows.window
        probe = probe if probe.ndim == 3 else probe[None]
        if tuple(probe.shape[1:]) != window:
            raise ValueError(f"the probe is {tuple(probe.shape[1:])}, the window is {window}")
        if "engine" in self.__dict__ and len(probe) != len(self._probe):
            del self.__dict__["engine"]  # its buffers are made for another number of modes
        self._probe = probe.to(device=self.device, dtype=self.complex_dtype)
        self.spectrum = torch.fft.fft2(self._probe)

    @property
    def positions(self) -> Tensor:
        """Positions (N, 2) in Å, float64 on the CPU."""
        return torch.from_numpy(self._places)

    def set_positions(self, positions: Tensor) -> None:
        """Replace the positions (N, 2) in Å."""
        if tuple(positions.shape) != self._places.shape:
            raise ValueError(f"expected positions of shape {self._places.shape}")
        self._places = to_places(positions)
        self.model.windows = self._windows(self.model.windows.window)

    # ---- gaps ------------------------------------------------------------------------------------
    @property
    def thickness(self) -> tuple[float, ...]:
        """Thickness of each gap between slices in Å, (D − 1)."""
        return self.model.gaps.thickness

    @property
    def tilt(self) -> tuple[float, float]:
        """Tilt of the beam (y, x) in mrad; see :mod:`.propagation`."""
        return self.model.gaps.tilt

    def set_gaps(
        self, thickness: float | Sequence[float] | None = None, tilt: Sequence[float] | None = None
    ) -> None:
        """Replace slice thickness (Å) and beam tilt (y, x) in mrad; what is None stays.

        See :meth:`.multislice.Multislice.set_gaps`.
        """
        self.model.set_gaps(thickness, tilt)
        if "engine" in self.__dict__:
            self.engine.renew_gaps()

    # ---- detector --------------------------------------------------------------------------------
    @property
    def detector(self) -> Detector:
        """Blur and background; a perfect detector unless set."""
        return self.data.detector or Detector()

    def set_detector(
        self,
        *,
        blur: float = 0.0,
        background: float = 0.0,
        image: Tensor | NDArray[np.floating] | None = None,
    ) -> None:
        """Replace the detector; what is not given is that of a perfect one.

        Parameters
        ----------
        blur : float
            Rms of the Gaussian point spread, pixels of the detector.
        background : float
            Electrons per pixel and pattern, on top of the constant that keeps logarithm and root
            finite.
        image : array, optional
            (Ky, Kx), DC-centred: further background, electrons per pixel and pattern.

        Raises
        ------
        ValueError
            If values are negative or do not fit the patterns, or if there is blur and
            every second pixel is left out (detector stride 2).
        """
        picture = None if image is None else to_array(image).astype(np.float64)
        if self.detector_stride == 2:
            if blur:
                raise ValueError("detector blur needs every pixel: use detector_stride 1")
            picture = None if picture is None else every_second(picture)
        new = Detector(float(blur), float(background), picture)
        new.check(self.model.windows.window)
        perfect = not new.blur and not new.background and new.image is None
        self.data.detector = None if perfect else new

    def _windows(self, window: tuple[int, int]) -> Windows:
        canvas = (self.shape[1], self.shape[2])
        return Windows(self._places, canvas, window, self.pixel_size, self._boundary)


def to_array(values: Tensor | NDArray[np.generic]) -> NDArray[np.generic]:
    """Values on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def to_places(positions: Tensor | NDArray[np.floating]) -> NDArray[np.float64]:
    """A copy of positions (N, 2) in Å."""
    return np.array(to_array(positions), dtype=np.float64)
