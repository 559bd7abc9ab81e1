"""Files that appear whole or not at all, and what is said when the disk is full."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this disk or account allows",
}
_NUMPY = re.compile(r"\d+ requested and \d+ written")  # ndarray.tofile names no cause
_names = itertools.count()


class NotWritable(OSError):
    """A folder in which nothing can be written."""


class NoRoom(OSError):
    """The disk is full, or a quota or limit is reached. Nothing was left behind."""

    def __str__(self) -> str:
        return str(self.strerror)


def no_room(error: BaseException | None, path: str | Path) -> NoRoom | None:
    """The error in a user's words if it says that there is no room for `path`; else None."""
    if isinstance(error, NoRoom):
        return error
    if not isinstance(error, OSError):
        return None
    number, reason = error.errno, _NO_ROOM.get(error.errno or 0)
    if number is None and _NUMPY.fullmatch(str(error)):
        number, reason = errno.ENOSPC, "the disk is full, or a limit is reached"
    if reason is None:
        return None
    path = Path(path)
    try:
        left = f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free there)"
    except OSError:
        left = ""
    return NoRoom(
        number, f"{reason}: {path} was not written{left}; free some space or choose another folder"
    )


@contextmanager
def saying_no_room(path: str | Path) -> Iterator[None]:
    """Errors of the block that say that there is no room for `path`, in a user's words.

    Raises
    ------
    NoRoom
        If the disk is full; any other error of the block passes as it is.
    """
    try:
        yield
    except OSError as error:
        if (full := no_room(error, path)) is not None:
            raise full from error
        raise


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place when the block ends well.

    When the block does not end well, the temporary file goes and `path` stays as it was.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    NoRoom
        If the disk is full; any other error of the block passes as it is.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{next(_names)}.partial{path.suffix}")
    try:
        with saying_no_room(path):
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Find out before a long run whether a file can be written at its end.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    NotWritable
        If nothing can be written there.
    """
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist")
    try:
        handle, name = tempfile.mkstemp(prefix=".mepdiff-", dir=folder)
        try:
            os.write(handle, b"\0" * 4096)
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        raise NotWritable(
            f"nothing can be written in the folder {folder} ({error.strerror or error}): choose "
            "another one for the output"
        ) from error
