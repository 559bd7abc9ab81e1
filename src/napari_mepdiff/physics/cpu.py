"""The multislice likelihood on CPU cores: FFTW for the transforms, one compiled pass for all that lies between.

Each thread takes a few positions at a time, so that its waves (128 KB) stay in the core's own cache from the
probe to the detector and back. The arithmetic is that of ``multislice.py``, held to it in the tests; this file only
orders it for the cache: per slice two transforms, and one pass over the pixels on the way in, one on the way out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from . import wisdom
from .multislice import Multislice
from .optics import shift_ramp

_PLAN_LOCK = threading.Lock()  # FFTW plans one at a time
_BLOCK_PIXELS = 128 * 128  # of a block of waves: what a core's own cache holds
_jit = njit(nogil=True, fastmath=True, cache=True, error_model="numpy")


@_jit
def _modulate(out: Any, a: Any, ry: Any, rx: Any) -> None:
    """out[b] = a · ry[b] · rx[b] for waves (B, M, K, L), a spectrum (M, K, L) and factors per row and column."""
    for b in range(out.shape[0]):
        for m in range(a.shape[0]):
            for i in range(a.shape[1]):
                f = ry[b, i]
                for j in range(a.shape[2]):
                    out[b, m, i, j] = a[m, i, j] * (f * rx[b, j])


@_jit
def _transmit(out: Any, wave: Any, canvas: Any, corner: Any) -> None:
    """out = wave · canvas window."""
    for b in range(wave.shape[0]):
        y, x = corner[b]
        for m in range(wave.shape[1]):
            for i in range(wave.shape[2]):
                row = canvas[y + i, x : x + wave.shape[3]]
                for j in range(wave.shape[3]):
                    out[b, m, i, j] = wave[b, m, i, j] * row[j]


@_jit
def _multiply(wave: Any, h: Any) -> None:
    """wave *= h."""
    for b in range(wave.shape[0]):
        for m in range(wave.shape[1]):
            for i in range(wave.shape[2]):
                for j in range(wave.shape[3]):
                    wave[b, m, i, j] *= h[i, j]


@_jit
def _absorb(chi: Any, before: Any, canvas: Any, acc: Any, corner: Any) -> None:
    """acc window += conj(before) · chi (summed over modes); chi *= conj(canvas window)."""
    for b in range(chi.shape[0]):
        y, x = corner[b]
        for m in range(chi.shape[1]):
            for i in range(chi.shape[2]):
                row = canvas[y + i, x : x + chi.shape[3]]
                total = acc[y + i, x : x + chi.shape[3]]
                for j in range(chi.shape[3]):
                    c = chi[b, m, i, j]
                    total[j] += np.conj(before[b, m, i, j]) * c
                    chi[b, m, i, j] = c * np.conj(row[j])


@_jit
def _absorb_phase(chi: Any, before: Any, canvas: Any, acc: Any, corner: Any) -> None:
    """For a pure phase object: chi *= conj(canvas window); acc window += Im(conj(before) · chi), a real sum."""
    for b in range(chi.shape[0]):
        y, x = corner[b]
        for m in range(chi.shape[1]):
            for i in range(chi.shape[2]):
                row = canvas[y + i, x : x + chi.shape[3]]
                total = acc[y + i, x : x + chi.shape[3]]
                for j in range(chi.shape[3]):
                    c = chi[b, m, i, j] * np.conj(row[j])
                    p = before[b, m, i, j]
                    total[j] += p.real * c.imag - p.imag * c.real
                    chi[b, m, i, j] = c


@_jit
def _intensity(psi: Any, out: Any, scale2: Any, background: Any) -> None:
    """out = Σ_m |Ψ_m|² · scale2 + background."""
    for i in range(psi.shape[1]):
        for j in range(psi.shape[2]):
            p = psi[0, i, j]
            out[i, j] = (p.real * p.real + p.imag * p.imag) * scale2 + background
        for m in range(1, psi.shape[0]):
            for j in range(psi.shape[2]):
                p = psi[m, i, j]
                out[i, j] += (p.real * p.real + p.imag * p.imag) * scale2


@_jit
def _misfit_intensity(v: Any, n: Any, w: Any) -> float:
    """Loss Σ w (v − n)²; v becomes dL/dv."""
    loss: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            d = v[i, j] - n[i, j]
            part += w[i, j] * d * d
            v[i, j] = np.float32(2) * w[i, j] * d
        loss += part
    return loss


@_jit
def _misfit_amplitude(v: Any, n: Any, w: Any) -> float:
    """Loss Σ w (√v − √n)²; v becomes dL/dv."""
    loss: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            sv = np.sqrt(v[i, j])
            d = sv - np.sqrt(n[i, j])
            part += w[i, j] * d * d
            v[i, j] = w[i, j] * d / sv
        loss += part
    return loss


@_jit
def _log(v: Any, bits: Any, out: Any, out_bits: Any) -> None:
    """out = log v, element by element, to float32. `bits` and `out_bits` are the same memory seen as int32.

    Spelled out (exponent, then the atanh series of the mantissa in [√½, √2)): the library's logarithm does not
    vectorise and would cost more than a transform.
    """
    half_root = np.int32(0x3F3504F3)
    for i in range(v.shape[0]):
        for j in range(v.shape[1]):
            out_bits[i, j] = bits[i, j] - (((bits[i, j] - half_root) >> np.int32(23)) << np.int32(23))
        for j in range(v.shape[1]):
            exponent = np.float32((bits[i, j] - half_root) >> np.int32(23))
            m = out[i, j]
            s = (m - np.float32(1)) / (m + np.float32(1))
            q = s * s
            series = np.float32(1) + q * (
                np.float32(1 / 3) + q * (np.float32(1 / 5) + q * (np.float32(1 / 7) + q * np.float32(1 / 9)))
            )
            out[i, j] = exponent * np.float32(0.6931471805599453) + np.float32(2) * s * series


@_jit
def _misfit_poisson(v: Any, n: Any, w: Any, log_v: Any) -> float:
    """Loss Σ w (v − n log v); v becomes dL/dv. What depends on n alone is added outside."""
    loss: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            part += w[i, j] * (v[i, j] - n[i, j] * log_v[i, j])
            v[i, j] = w[i, j] * (np.float32(1) - n[i, j] / v[i, j])
        loss += part
    return loss


@_jit
def _scale_waves(psi: Any, g: Any, scale2: Any) -> None:
    """psi *= g · scale2: from Ψ to ∂L/∂Ψ*."""
    for m in range(psi.shape[0]):
        for i in range(psi.shape[1]):
            for j in range(psi.shape[2]):
                psi[m, i, j] *= g[i, j] * scale2


@dataclass
class _Workspace:
    """One thread's buffers and plans for a block of B positions."""

    before: NDArray[np.complex64]  # (D, B, M, Ky, Kx)
    work: NDArray[np.complex64]  # (B, M, Ky, Kx)
    forward: Any
    inverse: Any
    into: list[Any]  # inverse transforms out of `work` into before[s]
    pixels: NDArray[np.float32]  # (2, Ky, Kx): intensities, then dL/dI; scratch for the logarithm
    acc: NDArray[Any] | None = None  # (D, Hp, Wp): complex with a band limit, real without


class CpuEngine:
    """Loss and gradients of one :class:`Multislice` over positions, in float32 on `threads` cores.

    Parameters
    ----------
    model : Multislice
        complex64 on the CPU.
    modes : int
        Incoherent probe modes.
    threads : int, optional
        All cores that this process may use by default.
    """

    def __init__(self, model: Multislice, modes: int, threads: int | None = None) -> None:
        self.model, self.modes = model, modes
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = threads or cores
        size = model.windows.window[0] * model.windows.window[1]
        # small windows go through several at a time, so that what Python does between passes stays small
        self.block = max(1, _BLOCK_PIXELS // (modes * size))
        # FFTW does not normalise: 1/size of every forward-inverse pair goes into the propagator
        unique = {id(h): np.ascontiguousarray((h / size).numpy()) for h in model.propagators}
        conjugate = {key: np.conj(h) for key, h in unique.items()}
        self._h = [unique[id(h)] for h in model.propagators]
        self._h_conj = [conjugate[id(h)] for h in model.propagators]
        self._scale2 = np.float32(1.0 / size)
        self._spaces: dict[tuple[int, int], _Workspace] = {}

    def bytes_per_thread(self) -> int:
        """Buffers of one thread, in bytes."""
        wave = self.block * self.modes * self.model.windows.window[0] * self.model.windows.window[1] * 8
        canvas = self.model.slices * self.model.windows.padded[0] * self.model.windows.padded[1] * 8
        return wave * (self.model.slices + 1) + canvas

    def _space(self, thread: int, block: int) -> _Workspace:
        key = (thread, block)
        if key not in self._spaces:
            import pyfftw

            with _PLAN_LOCK:
                shape = (block, self.modes, *self.model.windows.window)
                before = pyfftw.zeros_aligned((self.model.slices, *shape), dtype="complex64")
                work = pyfftw.zeros_aligned(shape, dtype="complex64")
                plan: dict[str, Any] = {"axes": (2, 3), "flags": ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")}
                known = wisdom.recall()
                self._spaces[key] = _Workspace(
                    before=before,
                    work=work,
                    pixels=np.empty((2, *shape[2:]), np.float32),
                    forward=pyfftw.FFTW(work, work, **plan),
                    inverse=pyfftw.FFTW(work, work, direction="FFTW_BACKWARD", **plan),
                    into=[pyfftw.FFTW(work, b, direction="FFTW_BACKWARD", **plan) for b in before],
                )
                wisdom.keep(known)
        return self._spaces[key]

    def patterns(
        self, canvas: Tensor, spectrum: Tensor, index: NDArray[np.int64], fraction: Tensor, background: float
    ) -> Tensor:
        """Modelled intensities (B, Ky, Kx), DC in the corner; arguments as in :meth:`run`."""
        out = np.empty((len(index), *self.model.windows.window), np.float32)

        def finish(space: _Workspace, block: slice, _thread: int) -> None:
            for b, target in enumerate(out[block]):
                _intensity(space.work[b], target, self._scale2, np.float32(background))

        self._sweep(canvas, spectrum, index, fraction, finish)
        return torch.from_numpy(out)

    def run(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        fraction: Tensor,
        background: float,
        counts: Tensor,
        weight: Tensor | None,
        misfit: str,
        *,
        volume: bool = True,
        probe: bool = False,
    ) -> tuple[float, Tensor | None, Tensor | None]:
        """Loss, what the volume's gradient is made from, and the spectra of ∂L/∂ψ₀* (B, M, Ky, Kx) if `probe`.

        Parameters
        ----------
        canvas : Tensor
            Padded transmission, (D, Hp, Wp).
        spectrum : Tensor
            Fourier transform of the probe, (M, Ky, Kx).
        index : array of int
            Positions to visit.
        fraction : Tensor
            Sub-pixel remainders of all positions, (N, 2).
        counts : Tensor
            All patterns (N, Ky, Kx), DC in the corner.
        weight : Tensor or None
            Detector weights, DC in the corner.
        misfit : 'intensity', 'amplitude' or 'poisson'
            The Poisson loss leaves out what depends on the counts alone.

        Returns
        -------
        loss : float
        total : Tensor or None
            (D, Hp, Wp): Σ conj(ψ)χ (complex) with a band limit, else Σ Im(conj(tψ)χ) (real).
        waves : Tensor or None
        """
        t, data = canvas.numpy(), counts.numpy()
        w = np.ones(self.model.windows.window, np.float32) if weight is None else weight.numpy()
        losses = np.zeros(len(index))
        waves = np.empty((len(index), self.modes, *self.model.windows.window), np.complex64) if probe else None
        corner = self.model.windows.corner[torch.as_tensor(index)].numpy()
        phase_only = self.model.band_limit is None
        absorb = _absorb_phase if phase_only else _absorb
        accumulators: dict[int, NDArray[Any]] = {}
        last = self.model.slices - 1

        def finish(space: _Workspace, block: slice, thread: int) -> None:
            work = space.work
            v, scratch = space.pixels
            for b, n in enumerate(range(block.start, block.stop)):
                _intensity(work[b], v, self._scale2, np.float32(background))
                if misfit == "intensity":
                    losses[n] = _misfit_intensity(v, data[index[n]], w)
                elif misfit == "amplitude":
                    losses[n] = _misfit_amplitude(v, data[index[n]], w)
                else:
                    _log(v, v.view(np.int32), scratch, scratch.view(np.int32))
                    losses[n] = _misfit_poisson(v, data[index[n]], w, scratch)
                _scale_waves(work[b], v, self._scale2)
            if not (volume or probe):
                return
            acc = accumulators.get(thread)
            if acc is None:
                acc = accumulators[thread] = np.zeros(t.shape, np.float32 if phase_only else np.complex64)
            space.inverse.execute()
            for s in range(last, -1, -1):
                absorb(work, space.before[s], t[s], acc[s], corner[block])
                if s > 0:
                    space.forward.execute()
                    _multiply(work, self._h_conj[s - 1])
                    space.inverse.execute()
            if waves is not None:
                space.forward.execute()
                waves[block] = work

        self._sweep(canvas, spectrum, index, fraction, finish)
        total = None
        if volume:
            # in the order of the threads, so that a run repeats bit for bit
            first, *others = (accumulators[i] for i in sorted(accumulators))
            for other in others:
                first += other
            total = torch.from_numpy(first)
        return float(losses.sum()), total, None if waves is None else torch.from_numpy(waves)

    def _sweep(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        fraction: Tensor,
        finish: Callable[[_Workspace, slice, int], None],
    ) -> None:
        """Forward model over all of `index`; `finish` takes each block's waves at the detector."""
        at = torch.as_tensor(index)
        height, width = self.model.windows.window
        ramps_y = shift_ramp(fraction[at, 0], height).to(torch.complex64).numpy()
        ramps_x = shift_ramp(fraction[at, 1], width).to(torch.complex64).numpy()
        corner = self.model.windows.corner[at].numpy()
        spec = np.ascontiguousarray((spectrum / (height * width)).numpy())
        t = canvas.numpy()
        threads = max(1, min(self.threads, len(index)))
        size = max(1, min(self.block, len(index) // threads))
        blocks = [slice(i, min(i + size, len(index))) for i in range(0, len(index), size)]
        last = self.model.slices - 1

        def work_through(thread: int) -> None:
            for block in blocks[thread::threads]:
                space = self._space(thread, block.stop - block.start)
                work, before, corners = space.work, space.before, corner[block]
                _modulate(work, spec, ramps_y[block], ramps_x[block])
                space.into[0].execute()
                for s in range(last):
                    _transmit(work, before[s], t[s], corners)
                    space.forward.execute()
                    _multiply(work, self._h[s])
                    space.into[s + 1].execute()
                _transmit(work, before[last], t[last], corners)
                space.forward.execute()
                finish(space, block, thread)

        if threads == 1:
            work_through(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work_through, range(threads)))
