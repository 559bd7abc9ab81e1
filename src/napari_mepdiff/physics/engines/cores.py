"""The multislice likelihood on CPU cores: FFTW (or SciPy), and one compiled pass for all that lies
between.

Each thread takes a few positions at a time, so that its waves (128 KB) stay in the core's own cache
from the probe to the detector and back. The arithmetic is that of ``multislice.py``, held to it in
the tests; this file only orders it for the cache: per slice two transforms, and one pass over the
pixels on the way in, one on the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...base.devices import cpu_cores
from ..multislice import Multislice
from ..optics import shift_ramp
from ..patterns import Patterns
from . import passes
from .engine import Sweep
from .readout import Readout
from .workspace import Workspace

_BLOCK_PIXELS = 128 * 128  # of a block of waves: what a core's own cache holds


class CpuEngine:
    """Loss and gradients of one :class:`Multislice` over positions, in float32 on `threads` cores.

    Parameters
    ----------
    model : Multislice
        complex64 on the CPU.
    data : Patterns
        Of any real type; used as float32.
    modes : int
        Incoherent probe modes.
    memory : int
        Bytes for the buffers of all threads; fewer threads work where they would not fit.
    threads : int, optional
        All cores that this process may use by default.
    """

    def __init__(
        self,
        model: Multislice,
        data: Patterns,
        modes: int,
        *,
        memory: int,
        threads: int | None = None,
    ) -> None:
        self.model, self.data, self.modes = model, data, modes
        self.poll: Callable[[], None] | None = None
        size = model.windows.window[0] * model.windows.window[1]
        # small windows go through several at a time, so that what Python does between passes stays
        # small
        self.block = max(1, _BLOCK_PIXELS // (modes * size))
        self.renew_gaps()
        self._scale2 = np.float32(1.0 / size)
        self._spaces: dict[tuple[int, int], Workspace] = {}
        self.threads = max(
            1, min(threads or cpu_cores(), memory // max(1, self.bytes_per_thread()))
        )

    def renew_gaps(self) -> None:
        """Take in the model's present propagators; buffers and plans stay."""
        propagators, window = self.model.propagators, self.model.windows.window
        # FFTW does not normalise: 1/size of every forward-inverse pair goes into the propagator
        size = window[0] * window[1]
        unique = {id(h): np.ascontiguousarray((h / size).numpy()) for h in propagators}
        conjugate = {key: np.conj(h) for key, h in unique.items()}
        self._h = [unique[id(h)] for h in propagators]
        self._h_conj = [conjugate[id(h)] for h in propagators]

    @property
    def chunk(self) -> int:
        """Positions that go through at once."""
        return self.block * self.threads

    def bytes_per_thread(self) -> int:
        """Buffers of one thread, in bytes."""
        wave = (
            self.block
            * self.modes
            * self.model.windows.window[0]
            * self.model.windows.window[1]
            * 8
        )
        canvas = self.model.slices * self.model.windows.padded[0] * self.model.windows.padded[1] * 8
        return wave * (self.model.slices + 1) + canvas

    def _space(self, thread: int, block: int) -> Workspace:
        key = (thread, block)
        if key not in self._spaces:
            shape = (block, self.modes, *self.model.windows.window)
            self._spaces[key] = Workspace(self.model.slices, shape)
        return self._spaces[key]

    def patterns(self, canvas: Tensor, spectrum: Tensor, index: NDArray[np.int64]) -> Tensor:
        """Modelled intensities (B, Ky, Kx), DC in the corner, background included."""
        out = np.empty((len(index), *self.model.windows.window), np.float32)
        readout = Readout(self.data, index, self.model.windows.window, self._scale2)

        def finish(space: Workspace, block: slice, thread: int) -> None:
            for b, target in enumerate(out[block]):
                readout.counts(space.work[b], target, thread)

        self._go_through(canvas, spectrum, index, finish)
        return torch.from_numpy(out)

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

        For the volume that is (D, Hp, Wp): Σ conj(ψ)χ (complex) with a band limit, else Σ
        Im(conj(tψ)χ) (real).
        """
        t, window = canvas.numpy(), self.model.windows.window
        readout = Readout(self.data, index, window, self._scale2, detector=detector)
        spectra = np.empty((len(index) if waves else 0, self.modes, *window), np.complex64)
        corner = self.model.windows.corner[index]
        phase_only = self.model.band_limit is None
        absorb = passes.absorb_phase if phase_only else passes.absorb
        accumulators: dict[int, NDArray[Any]] = {}
        sums: dict[int, NDArray[np.float32]] = {}  # of the gaps
        last = self.model.slices - 1

        def finish(space: Workspace, block: slice, thread: int) -> None:
            work = space.work
            for b, n in enumerate(range(block.start, block.stop)):
                readout.compare(work[b], space.pixels, n, thread)
            if not (volume or waves or gaps):
                return
            acc = accumulators.get(thread)
            if acc is None:
                acc = accumulators[thread] = np.zeros(
                    t.shape, np.float32 if phase_only else np.complex64
                )
            if gaps:
                behind, transform = space.second
                if thread not in sums:
                    sums[thread] = np.zeros((last, *window), np.float32)
            space.inverse.execute()
            for s in range(last, -1, -1):
                absorb(work, space.before[s], t[s], acc[s], corner[block])
                if s > 0:
                    space.forward.execute()
                    if gaps:
                        behind[...] = space.before[s]
                        transform.execute()
                        passes.correlate(work, behind, sums[thread][s - 1])
                    passes.multiply(work, self._h_conj[s - 1])
                    space.inverse.execute()
            if waves:
                space.forward.execute()
                spectra[block] = work

        self._go_through(canvas, spectrum, index, finish)
        total = _added(accumulators) if volume else None
        return Sweep(
            readout.loss,
            total,
            torch.from_numpy(spectra) if waves else None,
            _added(sums) if gaps else None,
            readout.detector,
        )

    def _go_through(
        self,
        canvas: Tensor,
        spectrum: Tensor,
        index: NDArray[np.int64],
        finish: Callable[[Workspace, slice, int], None],
    ) -> None:
        """Forward model over all of `index`; `finish` takes each block's waves at the detector."""
        height, width = self.model.windows.window
        fraction = torch.from_numpy(self.model.windows.fraction[index])
        ramps_y = shift_ramp(fraction[:, 0], height).to(torch.complex64).numpy()
        ramps_x = shift_ramp(fraction[:, 1], width).to(torch.complex64).numpy()
        corner = self.model.windows.corner[index]
        spec = np.ascontiguousarray((spectrum / (height * width)).numpy())
        t = canvas.numpy()
        threads = max(1, min(self.threads, len(index)))
        size = max(1, min(self.block, len(index) // threads))
        blocks = [slice(i, min(i + size, len(index))) for i in range(0, len(index), size)]
        last = self.model.slices - 1

        def work_through(thread: int) -> None:
            for block in blocks[thread::threads]:
                if self.poll is not None:
                    self.poll()
                space = self._space(thread, block.stop - block.start)
                work, before, corners = space.work, space.before, corner[block]
                passes.modulate(work, spec, ramps_y[block], ramps_x[block])
                space.into[0].execute()
                for s in range(last):
                    passes.transmit(work, before[s], t[s], corners)
                    space.forward.execute()
                    passes.multiply(work, self._h[s])
                    space.into[s + 1].execute()
                passes.transmit(work, before[last], t[last], corners)
                space.forward.execute()
                finish(space, block, thread)

        if threads == 1:
            work_through(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work_through, range(threads)))


def _added(parts: dict[int, NDArray[Any]]) -> Tensor:
    """Sum of what the threads have, in their order, so that a run repeats bit for bit."""
    first, *others = (parts[i] for i in sorted(parts))
    for other in others:
        first += other
    return torch.from_numpy(first)
