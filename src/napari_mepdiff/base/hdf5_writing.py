"""Writing HDF5 so that a full disk ends nothing.

The HDF5 library does not survive an error while it writes: after a full disk it crashes the
process, at once or when the file is closed, even if the error was caught. So it never meets the
disk by itself: what it writes goes through :class:`_Disk`, which keeps the error to itself until
the library is done.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .files import atomic, no_room

if TYPE_CHECKING:
    import h5py
    from _typeshed import ReadableBuffer, WriteableBuffer


class _Disk(io.RawIOBase):
    """A new file on disk to which writing never fails: the first error is kept in `error`.

    What is written after that stays in memory, so that whoever writes finds again what it wrote and
    can come to an end in good order.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  (closed by `close`)
        self._at = 0
        self._lost: list[tuple[int, bytes]] = []

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            ends = [start + len(part) for start, part in self._lost]
            offset += max([os.fstat(self._file.fileno()).st_size, *ends])
        elif whence == os.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def write(self, data: ReadableBuffer) -> int:
        part = memoryview(data).cast("B")
        if self.error is None:
            try:
                self._file.seek(self._at)
                done = 0
                while done < len(part):
                    done += self._file.write(part[done:]) or 0
            except OSError as error:
                self.error = error
        if self.error is not None:
            self._lost.append((self._at, bytes(part)))
        self._at += len(part)
        return len(part)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        count = self._file.readinto(view) or 0
        end = self._at + len(view)
        for start, part in self._lost:
            low, high = max(start, self._at), min(start + len(part), end)
            if low < high:
                view[low - self._at : high - self._at] = part[low - start : high - start]
                count = max(count, high - self._at)
        self._at += count
        return count

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error
        super().close()


class Writer(NamedTuple):
    """An HDF5 file that is being written."""

    file: h5py.File
    """To be filled with h5py."""
    check: Callable[[], None]
    """Raises what the disk has refused so far, if anything; see :func:`write_hdf5`."""


@contextmanager
def write_hdf5(path: str | Path) -> Iterator[Writer]:
    """Write an HDF5 file that appears whole or not at all; the process outlives a full disk.

    ``with write_hdf5(path) as (file, check): …``. Errors of the disk are raised when the block ends
    or when it calls ``check()``, never inside the HDF5 library. After such an error the rest of
    what is written stays in memory: a block that writes more than memory holds calls ``check()``
    between its parts.

    Raises
    ------
    NoRoom
        If the disk is full; no partial file is left.
    OSError
        If the disk refuses for another reason.
    """
    import h5py

    path = Path(path)
    with atomic(path) as temporary:
        disk = _Disk(temporary)

        def check() -> None:
            if disk.error is not None:
                raise no_room(disk.error, path) or disk.error

        try:
            with h5py.File(disk, "w", libver=("v110", "v110")) as file:
                yield Writer(file, check)
        finally:
            disk.close()
        check()
