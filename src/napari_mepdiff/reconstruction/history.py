"""FrameStore: the frames of a run, kept within a memory budget, the older ones on disk."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .frame import Frame

if TYPE_CHECKING:
    from dask.array import Array

BUDGET = 512 * 1024**2  # bytes
GIVEN_UP = "some frames are no longer kept"


class FrameStore:
    """Volumes of a run in the order they came, with their numbers.

    Safe to fill from one thread and read from another.

    Parameters
    ----------
    budget : int
        Bytes of volumes in memory; older ones go to a temporary file.
    every : int
        Keep every n-th frame (and always the newest).
    folder : path, optional
        Where that file is made; the system's place for temporary files if not given.

    Attributes
    ----------
    records : list of dict
        Of each frame that came, kept or not: index, step, total, loss, log_snr, seconds and the
        numbers of ``Frame.info``.
    last : Frame or None
        The newest frame, whole.
    notes : list of str
        What went wrong with keeping, in plain words.
    """

    def __init__(
        self, budget: int = BUDGET, every: int = 1, folder: str | Path | None = None
    ) -> None:
        self.budget, self.every, self.folder = int(budget), max(1, int(every)), folder
        self.records: list[dict[str, Any]] = []
        self.last: Frame | None = None
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._kept: list[int] = []  # indices of the records whose volume is kept
        self._memory: dict[int, NDArray[np.float32]] = {}
        self._disk: dict[int, int] = {}  # index to offset, in volumes
        self._file: Any = None
        self._written = 0
        self._used = 0

    def append(self, frame: Frame) -> None:
        """Keep a frame.

        Raises
        ------
        ValueError
            If its volume has another shape than those before; nothing is kept of it then.
        """
        numbers = frame.info.numbers()
        with self._lock:
            previous = self.last
            if previous is not None and previous.volume.shape != frame.volume.shape:
                raise ValueError(
                    f"a run's volumes have one shape; {previous.volume.shape} and then "
                    f"{frame.volume.shape} came"
                )
            index = len(self.records)
            self.records.append(
                {
                    **numbers,
                    "index": index,
                    "step": frame.step,
                    "total": frame.total,
                    "loss": frame.loss,
                    "log_snr": frame.log_snr,
                    "seconds": frame.seconds,
                }
            )
            self.last = frame
            if index % self.every == 0:
                self._kept.append(index)
                self._memory[index] = frame.volume
                self._used += frame.volume.nbytes
                while self._used > self.budget and len(self._memory) > 1:
                    self._spill()

    def _spill(self) -> None:
        """The oldest volume in memory to disk; if that fails, thin out what is kept."""
        oldest = next(iter(self._memory))
        volume = self._memory[oldest]
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(  # noqa: SIM115  (lives as long as the store)
                    prefix="mepdiff-frames-", dir=self.folder
                )
            self._file.seek(self._written * volume.nbytes)
            self._file.write(np.ascontiguousarray(volume).tobytes())
            self._file.flush()
            self._disk[oldest] = self._written
            self._written += 1
        except OSError as error:
            if not self.notes:
                self.notes.append(
                    f"older frames are not kept: {error.strerror or error} (the newest volume is "
                    "safe)"
                )
            self._kept.remove(oldest)
        self._used -= volume.nbytes
        del self._memory[oldest]

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def kept(self) -> list[dict[str, Any]]:
        """Records of the frames that can be had by :meth:`volume`, oldest first."""
        with self._lock:
            return [self.records[i] for i in self._kept]

    def volume(self, number: int) -> NDArray[np.float32]:
        """The volume of the n-th kept frame, (D, H, W) in rad.

        Negative numbers count from the newest.

        Raises
        ------
        IndexError
            If there is no such frame.
        """
        with self._lock:
            found = self._find(self._kept[number])
            assert found is not None
            return found

    def _find(self, index: int) -> NDArray[np.float32] | None:
        """The volume of a record, or None where it is not kept (any more)."""
        if index in self._memory:
            return self._memory[index]
        if index not in self._disk or self.last is None:
            return None
        like = self.last.volume
        self._file.seek(self._disk[index] * like.nbytes)
        return np.frombuffer(self._file.read(like.nbytes), dtype=like.dtype).reshape(like.shape)

    def array(self) -> Array:
        """All frames that are kept now as a lazy dask array (frames, D, H, W), rad.

        It can be read as long as the store exists: a frame that has been given up since is shown
        as the newest volume, and :attr:`notes` says so.

        Raises
        ------
        ValueError
            If no frame has come yet.
        """
        import dask.array as da
        from dask.delayed import delayed

        if self.last is None:
            raise ValueError("no frame has come yet")
        shape, dtype = self.last.volume.shape, self.last.volume.dtype
        read = delayed(self._or_newest, pure=False)
        with self._lock:
            kept = list(self._kept)
        return da.stack([da.from_delayed(read(n), shape, dtype) for n in kept])

    def _or_newest(self, index: int) -> NDArray[np.float32]:
        with self._lock:
            found = self._find(index)
            if found is None:
                assert self.last is not None
                found = self.last.volume
                text = f"{GIVEN_UP}: the newest volume is shown in their place"
                if text not in self.notes:
                    self.notes.append(text)
            return found

    @property
    def on_disk(self) -> int:
        """Volumes that lie on disk."""
        return len(self._disk)

    def close(self) -> None:
        """Forget all volumes but the newest; remove the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._kept.clear()
            self._memory.clear()
            self._disk.clear()
            self._used = 0
