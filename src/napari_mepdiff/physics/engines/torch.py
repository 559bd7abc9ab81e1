"""The multislice likelihood by torch: on a GPU, and in double precision for the tests."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..detector import Detector
from ..misfit import misfit
from ..multislice import Multislice
from ..patterns import Patterns
from .engine import Sweep

log = logging.getLogger(__name__)


class TorchEngine:
    """Loss and gradients of one :class:`Multislice`, in chunks of positions that fit into memory.

    Parameters
    ----------
    model : Multislice
    data : Patterns
    modes : int
        Incoherent probe modes.
    memory : int
        Bytes for waves. Halved whenever the device runs out of memory nevertheless.
    """

    def __init__(self, model: Multislice, data: Patterns, modes: int, *, memory: int) -> None:
        self.model, self.data, self.modes, self.memory = model, data, modes, memory
        self.poll: Callable[[], None] | None = None

    @property
    def chunk(self) -> int:
        """Positions that go through at once within the memory bound."""
        height, width = self.model.windows.window
        size = 8 if self.model.real_dtype == torch.float32 else 16
        wave = self.modes * height * width * size
        per_position = wave * (self.model.slices + 4) + height * width * (2 * size + 8)
        return max(1, min(int(self.memory // per_position), len(self.data)))

    def renew_gaps(self) -> None:
        """Nothing to do: the model's own propagators are used."""

    def patterns(self, canvas: Tensor, spectrum: Tensor, index: NDArray[np.int64]) -> Tensor:
        """Modelled intensities (B, Ky, Kx), DC in the corner, background included."""
        size = self.chunk
        parts = [index[i : i + size] for i in range(0, len(index), size)]
        return torch.cat([self._counts(self._forward(canvas, spectrum, part)[3]) for part in parts])

    def sweep(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        *,
        volume: bool = True,
        waves: bool = False,
        gaps: bool = False,
        detector: bool = False,
    ) -> Sweep:
        """Loss, and what the gradients are made from; see :class:`~.engine.Engine`.

        Raises
        ------
        torch.OutOfMemoryError
            If not even one position fits into the memory of the device.
        """
        size = self.chunk
        more = {name: True for name, on in (("gaps", gaps), ("detector", detector)) if on}
        while True:
            try:
                return self._attempt(canvas, spectrum, index, volume, waves, size, **more)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            # the whole call anew: what was added so far may be half of a chunk
            size = max(1, size // 2)
            self.memory = max(1, self.memory // 2)
            log.warning("%s is short of memory: %d positions at a time", self.model.device, size)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _attempt(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        volume: bool,
        waves: bool,
        size: int,
        *,
        gaps: bool = False,
        detector: bool = False,
    ) -> Sweep:
        data, device = self.data, self.model.device
        total = torch.zeros_like(canvas) if volume or waves or gaps else None
        of_gaps = None
        if gaps:
            shape = (self.model.slices - 1, *self.model.windows.window)
            of_gaps = torch.zeros(shape, dtype=self.model.real_dtype, device=device)
        of_detector = torch.zeros(2, dtype=torch.float64, device=device) if detector else None
        loss = torch.zeros((), dtype=torch.float64, device=device)
        spectra = []
        for i in range(0, len(index), size):
            if self.poll is not None:
                self.poll()
            part = index[i : i + size]
            grid, before, psi, ideal = self._forward(canvas, spectrum, part)
            counts = data.of(part, device)
            value, slope = misfit(data.misfit, self._counts(ideal), counts, data.weight)
            loss += value
            if of_detector is not None:
                by_blur = (data.detector or Detector()).spread_slope(ideal) * slope
                of_detector[0] += slope.sum(dtype=torch.float64)
                of_detector[1] += by_blur.sum(dtype=torch.float64)
            if total is None:
                continue
            if data.detector is not None:
                slope = data.detector.spread(slope)
            residual = slope[:, None] * psi
            first = self.model.backward(canvas, grid, before, residual, total, of_gaps)
            if waves:
                spectra.append(torch.fft.fft2(first))
        of_waves = torch.cat(spectra) if waves else None
        return Sweep(loss, total if volume else None, of_waves, of_gaps, of_detector)

    def _forward(
        self, canvas: Tensor, spectrum: Tensor, part: NDArray[np.int64]
    ) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Canvas indices, waves before each slice, waves at the detector, and the intensities that
        reach it, the constant background included."""
        windows = self.model.windows
        grid = self.model.indices(windows.corner[part])
        wave = self.model.incident(spectrum, windows.fraction[part])
        before, psi = self.model.forward(canvas, grid, wave)
        intensity = psi.real.square().add_(psi.imag.square()).sum(dim=1)
        return grid, before, psi, intensity + self.data.background

    def _counts(self, ideal: Tensor) -> Tensor:
        """What the detector makes of intensities (B, Ky, Kx)."""
        detector = self.data.detector
        return ideal if detector is None else detector.detect(ideal)
