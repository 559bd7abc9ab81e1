"""Boxes of the coming steps, drawn in other processes while the present step is computed.

What a step gets depends on the seed and the step alone, so it is the same with and without them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ..specimen.packing import Packed
from .crystals import Crystals

Order = tuple[int, int, tuple[int, int, int]]
"""What :meth:`~.crystals.Crystals.boxes` takes: number of the batch, volumes, voxels."""

_crystals: Crystals | None = None  # of a drawing process


class Ahead:
    """Draws boxes in other processes, some steps ahead.

    Parameters
    ----------
    crystals : Crystals
    order : callable
        Step to what is drawn for it.
    workers : int
        Processes; 0 draws in this one.
    """

    def __init__(self, crystals: Crystals, order: Callable[[int], Order], workers: int = 0) -> None:
        self.crystals, self.order, self.workers = crystals, order, workers
        self._pool: ProcessPoolExecutor | None = None
        self._coming: dict[int, Future[Packed]] = {}

    def take(self, step: int) -> Packed:
        """The boxes of a step; those of the next ones are drawn meanwhile.

        Raises
        ------
        RuntimeError
            If the drawing processes have died.
        """
        if self.workers == 0:
            return self.crystals.boxes(*self.order(step))
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                _begin,
                (
                    self.crystals.structures,
                    self.crystals.augmentation,
                    self.crystals.experimental_weight,
                    self.crystals.seed,
                ),
            )
        try:
            for n in range(step, step + 2 * self.workers + 1):
                if n not in self._coming:
                    self._coming[n] = self._pool.submit(_draw, self.order(n))
            for old in [n for n in self._coming if n < step]:
                self._coming.pop(old).cancel()
            return self._coming.pop(step).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "the processes that draw crystals have died (out of memory, or the script that "
                "trains lacks `if __name__ == '__main__':`); train with workers = 0"
            ) from error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        self._coming.clear()


def _begin(*parts: object) -> None:
    """In a drawing process: make the crystals, and end with the process that asked for them."""
    global _crystals
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run to deal with
    structures, augmentation, weight, seed = parts
    _crystals = Crystals(structures, augmentation, experimental_weight=weight, seed=seed)  # type: ignore[arg-type]
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _draw(order: Order) -> Packed:
    assert _crystals is not None
    return _crystals.boxes(*order)
