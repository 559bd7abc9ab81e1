"""Misfit between modelled and measured patterns, and its gradient over any batch of positions.

``loss, gradient = likelihood(volume, batch)`` is the one thing that solvers and guidance ask of the physics.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .multislice import Multislice, PropagatorKind
from .optics import wavelength
from .scan import Boundary, Windows

if TYPE_CHECKING:
    from .cpu import CpuEngine

Misfit = Literal["intensity", "amplitude", "poisson"]
Batch = Sequence[int] | NDArray[np.int64] | Tensor | None

DEFAULT_MEMORY = 2 * 1024**3


class LikelihoodFunction(Protocol):
    """What solvers need; :class:`Likelihood` and the PtyRAD engine both are one."""

    shape: tuple[int, int, int]
    count: int
    device: torch.device
    real_dtype: torch.dtype

    def __call__(self, volume: Tensor, batch: Batch = None) -> tuple[float, Tensor]:
        """Loss and gradient of the misfit summed over the positions of `batch` (all if None)."""
        ...


@dataclass(frozen=True)
class Gradients:
    """Loss and the gradients that were asked for.

    Attributes
    ----------
    loss : float
        Misfit summed over the batch.
    volume : Tensor or None
        ∂L/∂x, (D, H, W), per rad.
    probe : Tensor or None
        ∂L/∂Re P + i ∂L/∂Im P, (M, Ky, Kx), centred like the probe.
    positions : Tensor or None
        ∂L/∂(y, x), (B, 2), per Å.
    """

    loss: float
    volume: Tensor | None
    probe: Tensor | None
    positions: Tensor | None


class Likelihood:
    """Multislice likelihood of measured patterns.

    Misfits, summed over positions and unmasked pixels, with the modelled intensity I (electrons per pixel, background
    included) and the counts n:

    - ``intensity``: Σ (I − n)², the paper's ‖f(x) − y‖² (section 2);
    - ``amplitude``: Σ (√I − √n)²;
    - ``poisson``: Σ I − n + n log(n/I), half the Poisson deviance.

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
        (Ky, Kx), DC-centred weights of detector pixels; 0 leaves a pixel out. With a band limit the pixels beyond
        it are left out as well, since nothing can reach them.
    band_limit : float or None
        None for off; 2/3 as abTEM has it.
    detector_stride : 1 or 2
        2 takes every second detector pixel, which equals a window of half the size: a preview at a quarter of the
        arithmetic, exact where the canvas repeats with the half window and else good as long as the probe fits in it.
    background : float, optional
        Electrons per pixel added to the model; keeps logarithm and root finite. By default 6e-5 of the probe's mean
        intensity per pixel, so that it means the same at every dose.
    memory : int
        Bytes that one call may use for waves.
    device, dtype
        Torch device; torch.float32, or torch.float64 for tests.

    Raises
    ------
    ValueError
        If shapes disagree, counts are negative or not finite, or a window leaves an extended canvas.
    """

    _probe: Tensor

    def __init__(
        self,
        patterns: Tensor | NDArray[Any],
        probe: Tensor,
        positions: Tensor | NDArray[np.float64],
        shape: tuple[int, int, int],
        *,
        pixel_size: tuple[float, float],
        slice_thickness: float | Sequence[float],
        energy: float,
        boundary: Boundary = "periodic",
        misfit: Misfit = "intensity",
        mask: Tensor | NDArray[Any] | None = None,
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

        data = torch.as_tensor(patterns)
        probe = probe if probe.ndim == 3 else probe[None]
        positions = torch.as_tensor(positions, dtype=torch.float64)
        _check(data, probe, positions, shape)
        window = (data.shape[1], data.shape[2])
        centred_mask = None if mask is None else torch.as_tensor(mask, dtype=dtype)
        if centred_mask is not None and tuple(centred_mask.shape) != window:
            raise ValueError(f"the detector mask is {tuple(centred_mask.shape)}, the patterns are {window}")
        if detector_stride == 2:
            data, centred_mask = _every_second(data), _every_second(centred_mask)
            window, probe = (data.shape[1], data.shape[2]), _half_window(probe)
        elif detector_stride != 1:
            raise ValueError(f"detector_stride is 1 or 2, got {detector_stride}")

        self._positions = positions.cpu()
        self._lattice = {"canvas": (shape[1], shape[2]), "window": window, "boundary": boundary}
        windows = self._windows()
        self.model = Multislice(
            windows,
            pixel_size,
            slice_thickness,
            wavelength(energy),
            shape[0],
            propagator_kind=propagator,
            band_limit=band_limit,
            device=self.device,
            dtype=self.complex_dtype,
        )
        self.count = len(positions)
        # patterns with DC in the corner, kept beside the processor that uses them if they fit there
        counts = torch.fft.ifftshift(data.to(dtype), dim=(-2, -1)).contiguous()
        roomy = self.device.type == "cpu" or counts.numel() * counts.element_size() < self.memory // 2
        self._counts = counts.to(self.device) if roomy else counts
        self._weight = self._make_weight(centred_mask, window)
        self.set_probe(probe)

    # ---- what may change between calls ------------------------------------------------------------------------
    @property
    def probe(self) -> Tensor:
        """Probe (M, Ky, Kx), centred, √electrons. Of half the size with detector stride 2."""
        return self._probe

    def set_probe(self, probe: Tensor) -> None:
        """Replace the probe; same shape and units as at the start (half window with detector stride 2)."""
        window = self.model.windows.window
        probe = probe if probe.ndim == 3 else probe[None]
        if tuple(probe.shape[1:]) != window:
            raise ValueError(f"the probe is {tuple(probe.shape[1:])}, the window is {window}")
        if "_engine" in self.__dict__ and len(probe) != len(self._probe):
            del self.__dict__["_engine"]  # its buffers are made for another number of modes
        self._probe = probe.to(device=self.device, dtype=self.complex_dtype)
        self._spectrum = torch.fft.fft2(self._probe)

    @property
    def positions(self) -> Tensor:
        """Positions (N, 2) in Å, float64 on the CPU."""
        return self._positions

    def set_positions(self, positions: Tensor) -> None:
        """Replace the positions (N, 2) in Å."""
        if positions.shape != self._positions.shape:
            raise ValueError(f"expected positions of shape {tuple(self._positions.shape)}")
        self._positions = positions.detach().double().cpu()
        self.model.windows = self._windows()

    # ---- evaluation -------------------------------------------------------------------------------------------
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
    ) -> Gradients:
        """Loss and any of the gradients with respect to volume, probe and positions, in one sweep."""
        index = self._index(batch)
        volume = self._volume(volume)
        free, canvas = self.model.transmission(volume)
        run = self._run_cpu if self._on_cores else self._run_torch
        loss, total, waves = run(canvas, index, volume_gradient, probe or positions)
        grad_probe = grad_positions = None
        if waves is not None:
            fraction = self.model.windows.fraction[torch.as_tensor(index)]
            grad_probe, grad_positions = self._probe_gradients(waves, fraction, probe, positions)
        grad_volume = None if total is None else self.model.volume_gradient(free, total)
        return Gradients(loss + self._constant(index), grad_volume, grad_probe, grad_positions)

    def patterns(self, volume: Tensor, batch: Batch = None) -> Tensor:
        """Modelled patterns f(x), (B, Ky, Kx), electrons, DC at the centre, background included."""
        index = self._index(batch)
        _, canvas = self.model.transmission(self._volume(volume))
        if self._on_cores:
            out = self._engine.patterns(
                canvas, self._spectrum, index, self.model.windows.fraction, self.background
            )
        else:
            out = torch.cat([self._forward_torch(canvas, part)[2] for part in self._chunks(index, self.chunk)])
        return torch.fft.fftshift(out, dim=(-2, -1))

    def counts(self, batch: Batch = None) -> Tensor:
        """Measured patterns as the likelihood uses them, (B, Ky, Kx), DC at the centre."""
        index = torch.as_tensor(self._index(batch), device=self._counts.device)
        return torch.fft.fftshift(self._counts[index], dim=(-2, -1))

    @property
    def weight(self) -> Tensor:
        """Detector weights in use, (Ky, Kx), DC at the centre."""
        if self._weight is None:
            return torch.ones(self.model.windows.window, device=self.device, dtype=self.real_dtype)
        return torch.fft.fftshift(self._weight)

    @property
    def chunk(self) -> int:
        """Positions that go through at once within the memory bound (on the CPU engine: one per core)."""
        window = self.model.windows.window
        modes = self._probe.shape[0]
        size = 8 if self.real_dtype == torch.float32 else 16
        wave = modes * window[0] * window[1] * size
        per_position = wave * (self.shape[0] + 4) + window[0] * window[1] * (2 * size + 8)
        return max(1, min(int(self.memory // per_position), self.count))

    # ---- engines ----------------------------------------------------------------------------------------------
    @property
    def _on_cores(self) -> bool:
        return self.device.type == "cpu" and self.real_dtype == torch.float32

    @functools.cached_property
    def _engine(self) -> CpuEngine:
        from .cpu import CpuEngine

        engine = CpuEngine(self.model, self._probe.shape[0])
        engine.threads = max(1, min(engine.threads, self.memory // max(1, engine.bytes_per_thread())))
        return engine

    def _run_cpu(
        self, canvas: Tensor, index: NDArray[np.int64], volume: bool, waves: bool
    ) -> tuple[float, Tensor | None, Tensor | None]:
        return self._engine.run(
            canvas, self._spectrum, index, self.model.windows.fraction, self.background,
            self._counts, self._weight, self.misfit, volume=volume, probe=waves,
        )

    def _run_torch(
        self, canvas: Tensor, index: NDArray[np.int64], volume: bool, waves: bool
    ) -> tuple[float, Tensor | None, Tensor | None]:
        size = self.chunk
        while True:
            try:
                return self._try_torch(canvas, index, volume, waves, size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            size = max(1, size // 2)  # the whole call anew: what was added so far may be half of a chunk
            self.memory = max(1, self.memory // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _try_torch(
        self, canvas: Tensor, index: NDArray[np.int64], volume: bool, waves: bool, size: int
    ) -> tuple[float, Tensor | None, Tensor | None]:
        total = torch.zeros_like(canvas) if volume or waves else None
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        spectra = []
        for part in self._chunks(index, size):
            grid, (before, psi), model = self._forward_torch(canvas, part)
            counts = self._counts[torch.as_tensor(part, device=self._counts.device)].to(self.device)
            value, slope = _misfit(self.misfit, model, counts, self._weight)
            loss += value
            if total is None:
                continue
            first = self.model.backward(canvas, grid, before, slope[:, None] * psi, total)
            if waves:
                spectra.append(torch.fft.fft2(first))
        return float(loss), total if volume else None, torch.cat(spectra) if waves else None

    def _forward_torch(
        self, canvas: Tensor, part: NDArray[np.int64]
    ) -> tuple[Tensor, tuple[list[Tensor], Tensor], Tensor]:
        at = torch.as_tensor(part)
        windows = self.model.windows
        grid = self.model.indices(windows.corner[at])
        wave = self.model.incident(self._spectrum, windows.fraction[at])
        before, psi = self.model.forward(canvas, grid, wave)
        intensity = psi.real.square().add_(psi.imag.square()).sum(dim=1) + self.background
        return grid, (before, psi), intensity

    @staticmethod
    def _chunks(index: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        return [index[i : i + size] for i in range(0, len(index), size)]

    # ---- small parts ------------------------------------------------------------------------------------------
    def _windows(self) -> Windows:
        return Windows(self._positions, pixel_size=self.pixel_size, **self._lattice)  # type: ignore[arg-type]

    def _make_weight(self, mask: Tensor | None, window: tuple[int, int]) -> Tensor | None:
        weight = None if mask is None else torch.fft.ifftshift(mask)
        if self.model.window_mask is not None:
            # beyond the limit no wave arrives; on the taper the model is not what a simulation had either
            reach = (self.model.window_mask >= 1).to(self.real_dtype)
            weight = reach if weight is None else weight * reach
        if weight is None:
            return None
        if not torch.isfinite(weight).all() or (weight < 0).any() or weight.sum() == 0:
            raise ValueError("the detector mask must have finite weights ≥ 0 and leave some pixels")
        return weight.to(device=self.device, dtype=self.real_dtype).contiguous()

    def _index(self, batch: Batch) -> NDArray[np.int64]:
        if batch is None:
            return np.arange(self.count)
        index = np.atleast_1d(np.asarray(batch, dtype=np.int64))
        if index.size == 0 or index.min() < 0 or index.max() >= self.count:
            raise ValueError(f"a batch names some of the positions 0 … {self.count - 1}")
        return index

    def _volume(self, volume: Tensor) -> Tensor:
        if tuple(volume.shape) != tuple(self.shape):
            raise ValueError(f"the volume is {tuple(volume.shape)}, the model expects {tuple(self.shape)}")
        return volume.detach().to(device=self.device, dtype=self.real_dtype).contiguous()

    @functools.cached_property
    def _constants(self) -> NDArray[np.float64]:
        """Σ n log n − n per pattern: the part of the Poisson misfit that the fast engine leaves out."""
        out = np.empty(self.count)
        for i, n in enumerate(self._counts):
            term = torch.xlogy(n, n).double() - n.double()
            out[i] = float(term.sum() if self._weight is None else (term * self._weight.to(n.device)).sum())
        return out

    def _constant(self, index: NDArray[np.int64]) -> float:
        if self.misfit != "poisson" or not self._on_cores:
            return 0.0
        return float(self._constants[index].sum())

    def _probe_gradients(
        self, waves: Tensor, fraction: Tensor, probe: bool, positions: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """From the spectra of ∂L/∂ψ₀* (B, M, Ky, Kx), in chunks: ψ₀ = F⁻¹(ramp · F P)."""
        height, width = self.model.windows.window
        fy = torch.fft.fftfreq(height, device=self.device, dtype=self.real_dtype)[:, None]
        fx = torch.fft.fftfreq(width, device=self.device, dtype=self.real_dtype)[None, :]
        total = torch.zeros_like(self._spectrum)
        slopes = []
        for i in range(0, len(waves), 32):
            back = waves[i : i + 32] * self.model.ramps(fraction[i : i + 32]).conj()[:, None]
            total += back.sum(dim=0)
            if positions:
                # dψ̂/dδ = −2πi f ψ̂, and 2 Re Σ conj(ĝ) (−2πi f) ψ̂ / size = (4π/size) Σ f Im(conj(ĝ) ψ̂)
                overlap = (back.conj() * self._spectrum).imag.sum(dim=1)  # (B, Ky, Kx)
                slope = [(overlap * f).sum(dim=(1, 2), dtype=torch.float64) for f in (fy, fx)]
                slopes.append(4 * torch.pi / (height * width) * torch.stack(slope, dim=1))
        size = torch.tensor(self.pixel_size, dtype=torch.float64)
        return (
            2 * torch.fft.ifft2(total) if probe else None,
            (torch.cat(slopes).cpu() / size) if positions else None,
        )


def _misfit(kind: Misfit, model: Tensor, counts: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Loss (float64 scalar) and dL/dI (B, Ky, Kx)."""
    if kind == "intensity":
        diff = model - counts
        value, slope = diff.square(), 2 * diff
    elif kind == "amplitude":
        root = model.sqrt()
        diff = root - counts.sqrt()
        value, slope = diff.square(), diff / root
    else:
        ratio = torch.where(counts > 0, counts / model, 1.0)
        value = model - counts + counts * ratio.log()
        slope = 1 - counts / model
    if weight is not None:
        value, slope = value * weight, slope * weight
    return value.sum(dtype=torch.float64), slope


def default_background(probe: Tensor) -> float:
    """6e-5 of the mean intensity per detector pixel: 1e-3 electrons under the paper's conditions."""
    return max(6e-5 * float(probe.abs().square().sum()) / (probe.shape[-1] * probe.shape[-2]), 1e-30)


def _every_second(x: Any) -> Any:
    """Every second pixel of a DC-centred (…, Ky, Kx), DC kept and centred."""
    if x is None:
        return None
    start = [(n // 2) % 2 for n in x.shape[-2:]]
    if any(n % 4 for n in x.shape[-2:]):
        raise ValueError(f"detector_stride 2 needs a detector divisible by 4, got {tuple(x.shape[-2:])}")
    return x[..., start[0] :: 2, start[1] :: 2]


def _half_window(probe: Tensor) -> Tensor:
    """The probe whose spectrum is every second pixel of this one's: the window folded onto its central half.

    Scaled so that the sampled pattern keeps its values.
    """
    height, width = probe.shape[-2:]
    moved = torch.roll(probe, (-(height // 4), -(width // 4)), dims=(-2, -1))
    folded = moved.reshape(*probe.shape[:-2], 2, height // 2, 2, width // 2).sum(dim=(-4, -2))
    return folded / 2


def _check(data: Tensor, probe: Tensor, positions: Tensor, shape: tuple[int, int, int]) -> None:
    if data.ndim != 3:
        raise ValueError(f"patterns must be (N, Ky, Kx), got {tuple(data.shape)}")
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"the volume must be (D, H, W), got {shape}")
    if len(positions) != len(data):
        raise ValueError(f"{len(data)} patterns but {len(positions)} positions")
    if tuple(probe.shape[1:]) != tuple(data.shape[1:]):
        raise ValueError(f"the probe is {tuple(probe.shape[1:])} px, the patterns are {tuple(data.shape[1:])}")
    if not probe.is_complex():
        raise ValueError("the probe must be complex")
    for part in data.split(256):
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise ValueError("patterns contain NaN or infinite values: mask or repair them first")
        if (part < 0).any():
            raise ValueError("patterns contain negative counts: subtract less background, or clip")
