"""Misfit between modelled and measured patterns, and its gradient over any batch of positions.

``loss, gradient = likelihood(volume, batch)`` is the one thing that solvers and guidance ask of the
physics.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .detector import Detector
from .engines.engine import Engine
from .engines.torch import TorchEngine
from .incidence import probe_gradients
from .loss import Batch, Gradients
from .misfit import Misfit, default_background
from .multislice import Multislice
from .optics import wavelength
from .patterns import Patterns, check_mask, check_patterns, every_second, half_window
from .propagation import PropagatorKind
from .scan import Boundary, Windows

DEFAULT_MEMORY = 2 * 1024**3


class Likelihood:
    """Multislice likelihood of measured patterns.

    The misfits are those of :mod:`~napari_mepdiff.physics.misfit`, summed over positions and
    detector pixels.

    Parameters
    ----------
    patterns : Tensor or array
        (N, Ky, Kx), electrons per pixel, DC at (Ky // 2, Kx // 2).
    probe : Tensor
        Complex (M, Ky, Kx) or (Ky, Kx), centred; its total intensity is the electrons per pattern.
    positions : array
        (N, 2), Å, (y, x) on the canvas.
    shape : (D, H, W)
        Voxels of the volume.
    pixel_size : (dy, dx)
        Lateral voxel size, Å.
    slice_thickness : float or sequence of D floats
        Å.
    energy : float
        kV.
    boundary : 'periodic' or 'extended'
        See :class:`~napari_mepdiff.physics.scan.Windows`.
    mask : array, optional
        (Ky, Kx), DC-centred weights of detector pixels; 0 leaves a pixel out. With a band limit the
        pixels beyond it are left out as well, since nothing can reach them.
    band_limit : float or None
        None for off; 2/3 as abTEM has it.
    detector_stride : 1 or 2
        2 takes every second detector pixel, which equals a window of half the size: a preview at a
        quarter of the arithmetic, exact where the canvas repeats with the half window and else good
        as long as the probe fits in it.
    background : float, optional
        Electrons per pixel added to the model; keeps logarithm and root finite. By default 6e-5 of
        the probe's mean intensity per pixel, so that it means the same at every dose.
    memory : int
        Bytes that one call may use for waves.
    device, dtype
        Torch device; torch.float32, or torch.float64 for tests.

    Raises
    ------
    ValueError
        If shapes disagree, counts are negative or not finite, or a window leaves an extended
        canvas.
    """

    _probe: Tensor
    spectrum: Tensor  # of the probe; both are put in place by set_probe
    poll: Callable[[], None] | None = None
    """Asked before each block of positions, from any thread; what it raises ends the evaluation."""

    def __init__(
        self,
        patterns: Tensor | NDArray[np.generic],
        probe: Tensor,
        positions: Tensor | NDArray[np.float64],
        shape: tuple[int, int, int],
        *,
        pixel_size: tuple[float, float],
        slice_thickness: float | Sequence[float],
        energy: float,
        boundary: Boundary = "periodic",
        misfit: Misfit = "intensity",
        mask: Tensor | NDArray[np.generic] | None = None,
        propagator: PropagatorKind = "fresnel",
        band_limit: float | None = None,
        detector_stride: int = 1,
        background: float | None = None,
        memory: int = DEFAULT_MEMORY,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if misfit not in ("intensity", "amplitude", "poisson"):
            raise ValueError(f"misfit is 'intensity', 'amplitude' or 'poisson', got {misfit!r}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"the physics runs in float32 or float64, got {dtype}")
        if background is None:
            background = default_background(probe)
        if not background >= 0 or (background == 0 and misfit != "intensity"):
            raise ValueError(f"the {misfit} misfit needs a positive background, got {background}")
        self.misfit: Misfit = misfit
        self.background, self.memory, self.shape = float(background), int(memory), shape
        self.device, self.real_dtype = torch.device(device), dtype
        self.complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.detector_stride, self.pixel_size = detector_stride, pixel_size

        raw = patterns.detach().cpu().numpy() if isinstance(patterns, Tensor) else patterns
        probe = probe if probe.ndim == 3 else probe[None]
        places = _places(positions)
        check_patterns(raw, probe, places, shape)
        weights = None if mask is None else _array(mask)
        window = (int(raw.shape[1]), int(raw.shape[2]))
        if weights is not None:
            check_mask(weights, window, None)
        if detector_stride == 2:
            raw, probe, window = (
                every_second(raw),
                half_window(probe),
                (window[0] // 2, window[1] // 2),
            )
            weights = None if weights is None else every_second(weights)
        elif detector_stride != 1:
            raise ValueError(f"detector_stride is 1 or 2, got {detector_stride}")

        self._places = places
        self._boundary: Boundary = boundary
        self.model = Multislice(
            self._windows(window),
            pixel_size,
            slice_thickness,
            wavelength(energy),
            shape[0],
            propagator_kind=propagator,
            band_limit=band_limit,
            device=self.device,
            dtype=self.complex_dtype,
        )
        if weights is not None:
            check_mask(weights, window, self.model.reach)
        self.count = len(places)
        # patterns stay beside the processor that uses them if they fit there
        size = raw.size * (4 if dtype == torch.float32 else 8)
        self.data = Patterns(
            raw,
            self._make_weight(weights),
            misfit,
            self.background,
            near=size < self.memory // 2,
            device=self.device,
            dtype=dtype,
        )
        self.set_probe(probe)

    # ---- what may change between calls -----------------------------------------------------------
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
        self._places = _places(positions)
        self.model.windows = self._windows(self.model.windows.window)

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
        picture = None if image is None else _array(image).astype(np.float64)
        if self.detector_stride == 2:
            if blur:
                raise ValueError("detector blur needs every pixel: use detector_stride 1")
            picture = None if picture is None else every_second(picture)
        new = Detector(float(blur), float(background), picture)
        new.check(self.model.windows.window)
        perfect = not new.blur and not new.background and new.image is None
        self.data.detector = None if perfect else new

    # ---- evaluation ------------------------------------------------------------------------------
    def __call__(self, volume: Tensor, batch: Batch = None) -> tuple[float, Tensor]:
        """Loss and ∂L/∂x.

        Parameters
        ----------
        volume : Tensor
            Phase x in rad, (D, H, W).
        batch : sequence of int, optional
            Positions to use; all of them by default.

        Returns
        -------
        loss : float
            Summed over the batch.
        gradient : Tensor
            (D, H, W), same device and dtype as the likelihood.
        """
        g = self.gradients(volume, batch)
        assert g.volume is not None
        return g.loss, g.volume

    def loss(self, volume: Tensor, batch: Batch = None) -> float:
        """Loss alone: half the work."""
        return self.gradients(volume, batch, volume_gradient=False).loss

    def gradients(
        self,
        volume: Tensor,
        batch: Batch = None,
        *,
        volume_gradient: bool = True,
        probe: bool = False,
        positions: bool = False,
        gaps: bool = False,
        detector: bool = False,
    ) -> Gradients:
        """Loss and any of the gradients with respect to volume, probe, positions, gaps (thickness
        and tilt) and detector (background and blur), in one sweep.

        Raises
        ------
        ValueError
            If the gradient by gaps is asked for and there is a single slice.
        """
        index = self.index(batch)
        if gaps and self.model.slices == 1:
            raise ValueError("a single slice has no gap: no gradient by thickness and tilt")
        free, canvas = self.model.transmission(self._volume(volume))
        self.engine.poll = self.poll
        sweep = self.engine.sweep(
            canvas,
            self.spectrum,
            index,
            volume=volume_gradient,
            waves=probe or positions,
            gaps=gaps,
            detector=detector,
        )
        of_probe = of_positions = of_volume = of_thickness = of_tilt = None
        if sweep.waves is not None:
            fraction = self.model.windows.fraction[index]
            of_probe, of_positions = probe_gradients(
                sweep.waves,
                self.spectrum,
                fraction,
                self.pixel_size,
                probe=probe,
                positions=positions,
            )
        if sweep.volume is not None:
            of_volume = self.model.volume_gradient(free, sweep.volume)
        if sweep.gaps is not None:
            of_thickness, of_tilt = self.model.gaps.gradients(sweep.gaps)
        of_detector = (None, None) if sweep.detector is None else map(float, sweep.detector)
        return Gradients(
            float(sweep.loss),
            of_volume,
            of_probe,
            of_positions,
            of_thickness,
            of_tilt,
            *of_detector,
        )

    def patterns(self, volume: Tensor, batch: Batch = None) -> Tensor:
        """Modelled patterns f(x), (B, Ky, Kx), electrons, DC at the centre, background included."""
        _, canvas = self.model.transmission(self._volume(volume))
        out = self.engine.patterns(canvas, self.spectrum, self.index(batch))
        return torch.fft.fftshift(out, dim=(-2, -1))

    def counts(self, batch: Batch = None) -> Tensor:
        """Measured patterns as the likelihood uses them, (B, Ky, Kx), DC at the centre."""
        return self.data.centred(self.index(batch))

    @property
    def mean_pattern(self) -> NDArray[np.float64]:
        """Mean of all measured patterns as the likelihood uses them, (Ky, Kx), DC at the centre."""
        return self.data.mean

    @property
    def weight(self) -> Tensor:
        """Detector weights in use, (Ky, Kx), DC at the centre."""
        if self.data.weight is None:
            return torch.ones(self.model.windows.window, device=self.device, dtype=self.real_dtype)
        return torch.fft.fftshift(self.data.weight)

    @functools.cached_property
    def engine(self) -> Engine:
        """What does the arithmetic: FFTW and compiled passes on CPU cores in float32, else
        torch."""
        modes = len(self._probe)
        if self.device.type == "cpu" and self.real_dtype == torch.float32:
            from .engines.cores import CpuEngine

            return CpuEngine(self.model, self.data, modes, memory=self.memory)
        return TorchEngine(self.model, self.data, modes, memory=self.memory)

    # ---- small parts -----------------------------------------------------------------------------
    def index(self, batch: Batch = None) -> NDArray[np.int64]:
        """Positions of a batch, (B,); all if None.

        Raises
        ------
        ValueError
            If it is empty or names positions that are not there.
        """
        if batch is None:
            return np.arange(self.count)
        index = np.atleast_1d(np.asarray(batch, dtype=np.int64))
        if index.size == 0 or index.min() < 0 or index.max() >= self.count:
            raise ValueError(f"a batch names some of the positions 0 … {self.count - 1}")
        return index

    def _windows(self, window: tuple[int, int]) -> Windows:
        canvas = (self.shape[1], self.shape[2])
        return Windows(self._places, canvas, window, self.pixel_size, self._boundary)

    def _make_weight(self, mask: NDArray[np.generic] | None) -> Tensor | None:
        """Weights of detector pixels with DC in the corner; none beyond the band limit."""
        weight = None if mask is None else np.fft.ifftshift(mask)
        if self.model.reach is not None:
            weight = self.model.reach if weight is None else weight * self.model.reach
        if weight is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(weight)).to(self.device, self.real_dtype)

    def _volume(self, volume: Tensor) -> Tensor:
        if tuple(volume.shape) != tuple(self.shape):
            raise ValueError(
                f"the volume is {tuple(volume.shape)}, the model expects {tuple(self.shape)}"
            )
        return volume.detach().to(device=self.device, dtype=self.real_dtype).contiguous()


def _array(values: Tensor | NDArray[np.generic]) -> NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _places(positions: Tensor | NDArray[np.floating]) -> NDArray[np.float64]:
    return np.array(_array(positions), dtype=np.float64)
