"""Model patterns of a volume at some positions, as it is and with small changes of the microscope.

Whatever changes the incident wave is a change of the probe's spectrum, so the volume goes through
the physics as it is, again and again; only tilt and thickness need other propagators.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...physics.likelihood import Likelihood
from ...physics.optics import shift_ramp

Stack = NDArray[np.float64]


class Modelled:
    """A likelihood and the volume that it is asked about.

    Parameters
    ----------
    like : Likelihood
        Of the problem, with the microscope that the run believed in.
    volume : Tensor
        (D, H, W), rad.
    """

    def __init__(self, like: Likelihood, volume: Tensor) -> None:
        self.like, self.volume = like, volume
        x = like.grouping.sum(volume.to(device=like.device, dtype=like.real_dtype)).contiguous()
        self._canvas = like.model.transmission(x)[1]
        self._other: Tensor | None = None
        self.offset = (0, 0)  # (y, x) pixels by which the measured patterns are off the centre

    @property
    def spectrum(self) -> Tensor:
        """Of the probe, (M, Ky, Kx), DC in the corner."""
        return self.like.spectrum

    def patterns(self, index: NDArray[np.int64], spectrum: Tensor | None = None) -> Stack:
        """Modelled patterns (B, Ky, Kx), electrons, DC at the centre, background included."""
        return self._read(self._canvas, index, spectrum)

    def counts(self, index: NDArray[np.int64]) -> Stack:
        """Measured patterns (B, Ky, Kx), DC at the centre."""
        found = self.like.counts(index).numpy().astype(np.float64)
        if self.offset == (0, 0):
            return found
        return np.roll(found, (-self.offset[0], -self.offset[1]), (1, 2))

    def of_other(self, volume: Tensor, index: NDArray[np.int64]) -> Stack:
        """Patterns of another volume; its transmission is kept for the next call."""
        if self._other is None:
            like = self.like
            x = like.grouping.sum(volume.to(device=like.device, dtype=like.real_dtype))
            self._other = like.model.transmission(x.contiguous())[1]
        return self._read(self._other, index, None)

    def tilted(self, index: NDArray[np.int64], tilt: tuple[float, float]) -> Stack:
        """Patterns with another tilt (y, x) in mrad."""
        before = self.like.tilt
        self.like.set_gaps(tilt=tilt)
        try:
            return self.patterns(index)
        finally:
            self.like.set_gaps(tilt=before)

    def thicker(self, index: NDArray[np.int64], factor: float) -> Stack:
        """Patterns with all gaps so many times as thick."""
        before = self.like.thickness
        self.like.set_gaps(thickness=[t * factor for t in before])
        try:
            return self.patterns(index)
        finally:
            self.like.set_gaps(thickness=before)

    def shifted(self, shift: tuple[float, float]) -> Tensor:
        """Spectrum of the probe moved by (y, x) Å."""
        y, x = (
            shift_ramp(torch.tensor([s / p]), n)[0]
            for s, p, n in zip(shift, self.like.pixel_size, self.spectrum.shape[-2:], strict=True)
        )
        ramp = y[:, None] * x[None, :]
        return self.spectrum * ramp.to(self.spectrum)

    def _read(self, canvas: Tensor, index: NDArray[np.int64], spectrum: Tensor | None) -> Stack:
        wave = self.spectrum if spectrum is None else spectrum
        out = self.like.engine.patterns(canvas, wave, index)
        return torch.fft.fftshift(out, dim=(-2, -1)).cpu().numpy().astype(np.float64)
