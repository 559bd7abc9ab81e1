"""Misfit between modelled and measured patterns, and its gradient over any batch of positions.

``loss, gradient = likelihood(volume, batch)`` is the one thing that solvers and guidance ask of the
physics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .experiment import Experiment, to_array, to_places
from .gaps import check_thickness
from .grouping import Grouping
from .incidence import probe_gradients
from .loss import Batch, Gradients
from .misfit import Misfit, default_background
from .multislice import Multislice
from .optics import wavelength
from .patterns import Patterns, check_mask, check_patterns, every_second, half_window
from .propagation import PropagatorKind
from .scan import Boundary

DEFAULT_MEMORY = 2 * 1024**3


class Likelihood(Experiment):
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
    together : int
        Slices of the volume that the physics takes as one, see :mod:`.grouping`. The probe is then
        that at the middle of the first group.
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
        together: int = 1,
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
        places = to_places(positions)
        check_patterns(raw, probe, places, shape)
        weights = None if mask is None else to_array(mask)
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
        self.grouping = Grouping.every(shape[0], together)
        each = check_thickness(slice_thickness, shape[0])
        if not self.grouping.trivial:
            each = self.grouping.thickness(each)
        self.model = Multislice(
            self._windows(window),
            pixel_size,
            each,
            wavelength(energy),
            len(self.grouping.sizes),
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
            of_volume = self.grouping.adjoint(self.model.volume_gradient(free, sweep.volume))
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
        summed = self.grouping.sum(volume.detach().to(device=self.device, dtype=self.real_dtype))
        return summed.contiguous()
