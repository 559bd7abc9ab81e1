"""The CPU engine at the detector: counts, misfit and its derivative, pattern by pattern."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..patterns import Patterns
from . import passes

_COMPILED = {np.dtype(t) for t in ("u1", "u2", "u4", "i2", "i4", "f4", "f8")}  # types of counts
Pixels = NDArray[np.float32]


class Readout:
    """The end of the forward model for one call of the engine.

    Parameters
    ----------
    data : Patterns
    index : array of int
        Positions of the call, (B,).
    window : (Ky, Kx)
    scale2 : float
        From |Ψ|² of the engine's transforms to electrons.
    detector : bool
        Whether gradients by blur and background are wanted.
    """

    def __init__(
        self,
        data: Patterns,
        index: NDArray[np.int64],
        window: tuple[int, int],
        scale2: np.float32,
        *,
        detector: bool = False,
    ) -> None:
        self.data, self.index = data, index
        self._window, self._scale2, self._wanted = window, scale2, detector
        weight, real = data.weight, data.detector
        self._weight = np.ones(window, np.float32) if weight is None else weight.numpy()
        self._background = np.float32(data.background + (real.background if real else 0))
        self._blurred = real is not None and len(real.kernel) > 1
        self._image: Pixels | None = None
        if real is not None:
            self._kernel = real.kernel.astype(np.float32)
            self._kernel_slope = real.kernel_slope.astype(np.float32)
            if real.corner is not None:
                self._image = real.corner.astype(np.float32)
        self._compiled = data.counts.dtype in _COMPILED
        self._spaces: dict[int, tuple[Pixels, Pixels, Pixels]] = {}  # of the threads
        self._losses = np.zeros(len(index))
        self._slopes = np.zeros((2, len(index)))  # by background and blur

    def counts(self, waves: NDArray[np.complex64], out: Pixels, thread: int) -> None:
        """Expected counts (Ky, Kx) of waves (M, Ky, Kx) at the detector."""
        if self._blurred:
            ideal, _, row = self._space(thread)
            passes.intensity(waves, ideal, self._scale2, self._background)
            passes.spread(ideal, self._kernel, self._kernel, row, out)
        else:
            passes.intensity(waves, out, self._scale2, self._background)
        if self._image is not None:
            out += self._image

    def compare(self, waves: NDArray[np.complex64], pixels: Pixels, n: int, thread: int) -> None:
        """Misfit of the n-th position of the call; its waves Ψ become ∂L/∂Ψ*.

        `pixels` is scratch, (3, Ky, Kx).
        """
        v, scratch, counts = pixels
        self.counts(waves, v, thread)
        if self._compiled:
            passes.to_corner(self.data.counts[self.index[n]], counts)
        else:
            self.data.corner(self.index[n], counts)
        if self.data.misfit == "intensity":
            self._losses[n] = passes.misfit_intensity(v, counts, self._weight)
        elif self.data.misfit == "amplitude":
            self._losses[n] = passes.misfit_amplitude(v, counts, self._weight)
        else:
            passes.logarithm(v, v.view(np.int32), scratch, scratch.view(np.int32))
            self._losses[n] = passes.misfit_poisson(v, counts, self._weight, scratch)
        if self._wanted:
            self._slopes[0, n] = passes.total(v)
        if self._blurred:
            ideal, other, row = self._space(thread)
            if self._wanted:
                for y, x in (
                    (self._kernel_slope, self._kernel),
                    (self._kernel, self._kernel_slope),
                ):
                    passes.spread(ideal, y, x, row, other)
                    self._slopes[1, n] += passes.dot(v, other)
            passes.spread(v, self._kernel, self._kernel, row, other)  # its own adjoint
            v = other
        passes.scale_waves(waves, v, self._scale2)

    @property
    def loss(self) -> float:
        """Summed over the positions."""
        loss = float(self._losses.sum())
        if self.data.misfit == "poisson":  # the compiled pass leaves out what no model changes
            loss += self.data.constants(self.index)
        return loss

    @property
    def detector(self) -> Tensor | None:
        """∂L by background and blur, (2,), float64."""
        return torch.from_numpy(self._slopes.sum(axis=1)) if self._wanted else None

    def _space(self, thread: int) -> tuple[Pixels, Pixels, Pixels]:
        """The sharp pattern, one more, and a row with rims for the convolution."""
        if thread not in self._spaces:
            sharp, other = np.empty((2, *self._window), np.float32)
            row = np.empty(self._window[1] + len(self._kernel) - 1, np.float32)
            self._spaces[thread] = sharp, other, row
        return self._spaces[thread]
