"""The multislice likelihood on CPU cores: FFTW for the transforms, one compiled pass for all that lies between.

Each thread takes positions one at a time, so that its wave (128 KB at 128²) stays in the core's own cache from the
probe to the detector and back. The arithmetic is that of ``multislice.py``, held to it in the tests; this file only
orders it for the cache: per slice two transforms, and one pass over the pixels on the way in, one on the way out.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from .multislice import Multislice

_PLAN_LOCK = threading.Lock()  # FFTW plans one at a time
_jit = njit(nogil=True, fastmath=True, cache=True, error_model="numpy")


@_jit
def _modulate(out: Any, a: Any, ry: Any, rx: Any) -> None:
    """out = a · ry · rx for (M, K, L) waves and one factor per row and column."""
    for m in range(a.shape[0]):
        for i in range(a.shape[1]):
            f = ry[i]
            for j in range(a.shape[2]):
                out[m, i, j] = a[m, i, j] * (f * rx[j])


@_jit
def _transmit(out: Any, wave: Any, canvas: Any, y: int, x: int) -> None:
    """out = wave · canvas window."""
    for m in range(wave.shape[0]):
        for i in range(wave.shape[1]):
            row = canvas[y + i, x : x + wave.shape[2]]
            for j in range(wave.shape[2]):
                out[m, i, j] = wave[m, i, j] * row[j]


@_jit
def _multiply(wave: Any, h: Any) -> None:
    """wave *= h."""
    for m in range(wave.shape[0]):
        for i in range(wave.shape[1]):
            for j in range(wave.shape[2]):
                wave[m, i, j] *= h[i, j]


@_jit
def _multiply_conj(wave: Any, h: Any) -> None:
    """wave *= conj(h)."""
    for m in range(wave.shape[0]):
        for i in range(wave.shape[1]):
            for j in range(wave.shape[2]):
                wave[m, i, j] *= np.conj(h[i, j])


@_jit
def _absorb(chi: Any, before: Any, canvas: Any, acc: Any, y: int, x: int) -> None:
    """acc window += conj(before) · chi (summed over modes); chi *= conj(canvas window)."""
    for m in range(chi.shape[0]):
        for i in range(chi.shape[1]):
            row = canvas[y + i, x : x + chi.shape[2]]
            total = acc[y + i, x : x + chi.shape[2]]
            for j in range(chi.shape[2]):
                c = chi[m, i, j]
                total[j] += np.conj(before[m, i, j]) * c
                chi[m, i, j] = c * np.conj(row[j])


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
    loss = 0.0
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
    loss = 0.0
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
    loss = 0.0
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
    """One thread's buffers and plans; the canvases are shared, the accumulators are not."""

    before: NDArray[np.complex64]
    work: NDArray[np.complex64]
    forward: Any
    inverse: Any
    into: list[Any]  # inverse transforms out of `work` into before[s]
    pixels: NDArray[np.float32]  # (2, Ky, Kx): intensities, then dL/dI; scratch for the logarithm
    acc: NDArray[np.complex64] | None = None


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
        # FFTW does not normalise: 1/size of every forward-inverse pair goes into the propagator
        unique = {id(h): np.ascontiguousarray((h / size).numpy()) for h in model.propagators}
        self._h = [unique[id(h)] for h in model.propagators]
        self._scale = 1.0 / size**0.5
        self._spaces: list[_Workspace] = []

    def bytes_per_thread(self) -> int:
        """Buffers of one thread, in bytes."""
        wave = self.modes * self.model.windows.window[0] * self.model.windows.window[1] * 8
        canvas = self.model.slices * self.model.windows.padded[0] * self.model.windows.padded[1] * 8
        return wave * (self.model.slices + 1) + canvas

    def _space(self, i: int) -> _Workspace:
        with _PLAN_LOCK:
            while len(self._spaces) <= i:
                import pyfftw

                shape = (self.modes, *self.model.windows.window)
                before = pyfftw.zeros_aligned((self.model.slices, *shape), dtype="complex64")
                work = pyfftw.zeros_aligned(shape, dtype="complex64")
                plan: dict[str, Any] = {"axes": (1, 2), "flags": ("FFTW_MEASURE",)}
                self._spaces.append(
                    _Workspace(
                        before=before,
                        work=work,
                        pixels=np.empty((2, *shape[1:]), np.float32),
                        forward=pyfftw.FFTW(work, work, **plan),
                        inverse=pyfftw.FFTW(work, work, direction="FFTW_BACKWARD", **plan),
                        into=[
                            pyfftw.FFTW(work, b, direction="FFTW_BACKWARD",
                                        axes=(1, 2), flags=("FFTW_MEASURE", "FFTW_DESTROY_INPUT"))
                            for b in before
                        ],
                    )
                )
        return self._spaces[i]

    def run(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        counts: Any,
        weight: Tensor | None,
        misfit: str,
        background: float,
        *,
        volume: bool = True,
        probe: bool = False,
        fraction: Tensor,
    ) -> tuple[float, Tensor | None, Tensor | None]:
        """Loss, accumulated Σ conj(ψ)χ (D, Hp, Wp), and the spectra of ∂L/∂ψ₀* (N, M, Ky, Kx) if `probe`.

        Parameters
        ----------
        canvas : Tensor
            Padded transmission, (D, Hp, Wp).
        spectrum : Tensor
            Fourier transform of the probe, (M, Ky, Kx).
        index : array of int
            Positions to visit.
        counts : Tensor
            Patterns (N_all, Ky, Kx), DC in the corner; or None for the forward model alone, whose patterns come back
            in place of the accumulator.
        """
        model = self.model
        ramps_y, ramps_x = _ramps(model, fraction[torch.as_tensor(index)])
        corner = model.windows.corner[torch.as_tensor(index)].numpy()
        spec = np.ascontiguousarray((spectrum / (spectrum.shape[-1] * spectrum.shape[-2])).numpy())
        t = canvas.numpy()
        height, width = model.windows.window
        w = np.ones((height, width), np.float32) if weight is None else weight.numpy()
        data = None if counts is None else counts.numpy()
        scale2, dark = np.float32(self._scale**2), np.float32(background)
        patterns = np.empty((len(index), height, width), np.float32) if data is None else None
        waves = np.empty((len(index), self.modes, height, width), np.complex64) if probe else None
        threads = min(self.threads, max(1, len(index)))
        losses = [0.0] * len(index)
        last = model.slices - 1

        def one(space: _Workspace, n: int) -> None:
            y, x = int(corner[n, 0]), int(corner[n, 1])
            work, before = space.work, space.before
            _modulate(work, spec, ramps_y[n], ramps_x[n])
            space.into[0].execute()
            for s in range(last):
                _transmit(work, before[s], t[s], y, x)
                space.forward.execute()
                _multiply(work, self._h[s])
                space.into[s + 1].execute()
            _transmit(work, before[last], t[last], y, x)
            space.forward.execute()
            if patterns is not None:
                _intensity(work, patterns[n], scale2, dark)
                return
            v, scratch = space.pixels
            _intensity(work, v, scale2, dark)
            if misfit == "intensity":
                losses[n] = _misfit_intensity(v, data[index[n]], w)
            elif misfit == "amplitude":
                losses[n] = _misfit_amplitude(v, data[index[n]], w)
            else:
                _log(v, v.view(np.int32), scratch, scratch.view(np.int32))
                losses[n] = _misfit_poisson(v, data[index[n]], w, scratch)
            _scale_waves(work, v, scale2)
            if space.acc is None and waves is None:
                return
            space.inverse.execute()
            assert space.acc is not None
            for s in range(last, -1, -1):
                _absorb(work, before[s], t[s], space.acc[s], y, x)
                if s > 0:
                    space.forward.execute()
                    _multiply_conj(work, self._h[s - 1])
                    space.inverse.execute()
            if waves is not None:
                space.forward.execute()
                waves[n] = work

        def work_through(thread: int) -> None:
            space = self._space(thread)
            need = volume or probe
            if not need or patterns is not None:
                space.acc = None
            elif space.acc is None or space.acc.shape != t.shape:
                space.acc = np.zeros(t.shape, np.complex64)
            else:
                space.acc[...] = 0
            for n in range(thread, len(index), threads):
                one(space, n)

        if threads == 1:
            work_through(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work_through, range(threads)))
        if patterns is not None:
            return 0.0, torch.from_numpy(patterns), None
        total = None
        if volume:
            first = self._spaces[0].acc
            assert first is not None
            for space in self._spaces[1:threads]:
                assert space.acc is not None
                first += space.acc
            total = torch.from_numpy(first)
        return float(np.sum(losses)), total, None if waves is None else torch.from_numpy(waves)


def _ramps(model: Multislice, fraction: Tensor) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Row and column factors of the sub-pixel shifts, (N, Ky) and (N, Kx)."""
    from .optics import shift_ramp

    height, width = model.windows.window
    return (
        shift_ramp(fraction[:, 0], height).to(torch.complex64).numpy(),
        shift_ramp(fraction[:, 1], width).to(torch.complex64).numpy(),
    )
