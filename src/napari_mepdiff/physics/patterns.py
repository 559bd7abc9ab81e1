"""Measured patterns as the likelihood uses them: checked, sampled, DC in the corner, beside the
processor."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy
from torch import Tensor

from .detector import Detector
from .misfit import Misfit

Array = NDArray[Any]

_PART = 128  # patterns that are turned or summed at once


class Patterns:
    """What modelled patterns are compared with.

    Measured patterns are large, so there is one copy of them: the array that was given, in its own
    type, which is turned (DC to the corner) and converted pattern by pattern as they are used. Only
    a device that has room for all of them gets its own.

    Parameters
    ----------
    counts : ndarray
        (N, Ky, Kx), electrons, DC at (Ky // 2, Kx // 2); any real type. Not written to.
    weight : Tensor or None
        (Ky, Kx), of detector pixels, DC in the corner; None counts all pixels the same.
    misfit : 'intensity', 'amplitude' or 'poisson'
    background : float
        Electrons per pixel added to the model.
    near : bool
        Keep the patterns on `device`; else they go there part by part.
    device, dtype
        Where the patterns are used, and as what.
    """

    def __init__(
        self,
        counts: Array,
        weight: Tensor | None,
        misfit: Misfit,
        background: float,
        *,
        near: bool,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.counts = counts
        self.weight, self.misfit, self.background = weight, misfit, background
        self.detector: Detector | None = None  # a perfect one; may be replaced between calls
        self._dtype: type[np.floating] = np.float32 if dtype == torch.float32 else np.float64
        self._near: Tensor | None = None
        if near and device.type != "cpu":
            parts = np.array_split(np.arange(len(counts)), max(1, len(counts) // _PART))
            self._near = torch.cat([self.of(part, device) for part in parts])

    def __len__(self) -> int:
        return len(self.counts)

    def of(self, index: NDArray[np.int64], device: torch.device) -> Tensor:
        """Patterns (B, Ky, Kx) of some positions on a device, DC in the corner."""
        if self._near is not None:
            return self._near[torch.as_tensor(index, device=self._near.device)].to(device)
        some = torch.from_numpy(self.counts[index].astype(self._dtype)).to(device)
        return torch.fft.ifftshift(some, dim=(-2, -1)).contiguous()

    def centred(self, index: NDArray[np.int64]) -> Tensor:
        """Patterns (B, Ky, Kx) of some positions, DC at the centre, on the CPU."""
        return torch.from_numpy(self.counts[index].astype(self._dtype))

    def corner(self, position: int, out: Array) -> None:
        """Write one pattern into `out` (Ky, Kx), DC in the corner."""
        n, (height, width) = self.counts[position], out.shape
        y, x = height // 2, width // 2  # where DC lies
        out[: height - y, : width - x] = n[y:, x:]
        out[: height - y, width - x :] = n[y:, :x]
        out[height - y :, : width - x] = n[:y, x:]
        out[height - y :, width - x :] = n[:y, :x]

    @functools.cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean of all patterns, (Ky, Kx), electrons, DC at the centre."""
        exact = np.uint64 if self.counts.dtype.kind == "u" else np.float64
        total = np.zeros(self.counts.shape[1:], exact)
        for low in range(0, len(self), _PART):
            total += self.counts[low : low + _PART].sum(axis=0, dtype=exact)
        return (total / len(self)).astype(np.float64)

    def constants(self, index: NDArray[np.int64]) -> float:
        """Σ n log n − n over some patterns: the part of the Poisson misfit that no model
        changes."""
        wanted = np.unique(index[np.isnan(self._terms[index])])
        for low in range(0, len(wanted), _PART):
            part = wanted[low : low + _PART]
            self._terms[part] = self._term(self.counts[part])
        return float(self._terms[index].sum())

    @functools.cached_property
    def _terms(self) -> NDArray[np.float64]:
        return np.full(len(self), np.nan)

    @functools.cached_property
    def _centred_weight(self) -> NDArray[np.floating] | None:
        return None if self.weight is None else torch.fft.fftshift(self.weight).cpu().numpy()

    def _term(self, counts: Array) -> NDArray[np.float64]:
        """Of each pattern (B, Ky, Kx)."""
        if counts.dtype.kind == "u" and counts.dtype.itemsize <= 2:
            value = self._table[counts]
        else:
            value = _own_term(counts.astype(np.float32))
        if self._centred_weight is not None:
            value = value * self._centred_weight
        return value.sum(axis=(1, 2), dtype=np.float64)

    @functools.cached_property
    def _table(self) -> NDArray[np.float64]:
        """n log n − n of every count that the type can hold."""
        return _own_term(np.arange(np.iinfo(self.counts.dtype).max + 1, dtype=np.float32))


def _own_term(n: NDArray[np.float32]) -> NDArray[np.float64]:
    """n log n − n."""
    return xlogy(n, n).astype(np.float64) - n


def check_patterns(
    patterns: Array, probe: Tensor, positions: Array, shape: tuple[int, int, int]
) -> None:
    """Whether patterns, probe, positions and volume fit together and hold possible values.

    Raises
    ------
    ValueError
        If not; the message says what is wrong.
    """
    if patterns.ndim != 3:
        raise ValueError(f"patterns must be (N, Ky, Kx), got {tuple(patterns.shape)}")
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"the volume must be (D, H, W), got {shape}")
    if len(positions) != len(patterns):
        raise ValueError(f"{len(patterns)} patterns but {len(positions)} positions")
    if tuple(probe.shape[1:]) != tuple(patterns.shape[1:]):
        raise ValueError(
            f"the probe is {tuple(probe.shape[1:])} px, the patterns are "
            f"{tuple(patterns.shape[1:])}"
        )
    if not probe.is_complex():
        raise ValueError("the probe must be complex")
    if patterns.dtype.kind == "u":
        return
    for low in range(0, len(patterns), 256):
        part = patterns[low : low + 256]
        if not np.isfinite(part).all():
            raise ValueError("patterns contain NaN or infinite values: mask or repair them first")
        if (part < 0).any():
            raise ValueError("patterns contain negative counts: subtract less background, or clip")


def check_mask(mask: Array, window: tuple[int, int], reach: NDArray[np.bool_] | None) -> None:
    """Whether a detector mask (Ky, Kx) fits, and leaves pixels that waves within the band limit
    reach.

    Raises
    ------
    ValueError
        If not.
    """
    if tuple(mask.shape) != window:
        raise ValueError(f"the detector mask is {tuple(mask.shape)}, the patterns are {window}")
    left = mask if reach is None else mask * np.fft.fftshift(reach)
    if not np.isfinite(mask).all() or (mask < 0).any() or left.sum() == 0:
        raise ValueError("the detector mask must have finite weights ≥ 0 and leave some pixels")


Grid = TypeVar("Grid", Tensor, NDArray[Any])


def every_second(x: Grid) -> Grid:
    """Every second pixel of a DC-centred (…, Ky, Kx), DC kept and centred.

    Raises
    ------
    ValueError
        If the detector is not divisible by 4.
    """
    if any(n % 4 for n in x.shape[-2:]):
        raise ValueError(
            f"detector_stride 2 needs a detector divisible by 4, got {tuple(x.shape[-2:])}"
        )
    start = [(n // 2) % 2 for n in x.shape[-2:]]
    return x[..., start[0] :: 2, start[1] :: 2]


def half_window(probe: Tensor) -> Tensor:
    """The probe whose spectrum is every second pixel of this one's: the window folded onto its
    central half.

    Scaled so that the sampled pattern keeps its values.
    """
    height, width = probe.shape[-2:]
    moved = torch.roll(probe, (-(height // 4), -(width // 4)), dims=(-2, -1))
    folded = moved.reshape(*probe.shape[:-2], 2, height // 2, 2, width // 2).sum(dim=(-4, -2))
    return folded / 2
