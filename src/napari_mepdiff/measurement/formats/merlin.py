"""Merlin (.mib) files: how many frames there are, and what that says about the scan.

The frames come one after another, each with a header; how they were scanned stands, if anywhere, in
a .hdr file beside them. Frames of the beam's way back (flyback) may be among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .common import ReadError

_BYTES = {"U08": 1, "U8": 1, "U16": 2, "U32": 4}


@dataclass(frozen=True)
class Rows:
    """How the frames of a file are read as a scan.

    Attributes
    ----------
    shape : (rows, frames in a row)
        Of what is read; frames of a row beyond the scan are cut off.
    columns : int
        Positions of a row that belong to the scan.
    doubts : tuple of str
        What had to be assumed.
    """

    shape: tuple[int, int]
    columns: int
    doubts: tuple[str, ...]


def frames(path: Path) -> tuple[int, bool] | None:
    """Frames in a file, and whether it ends within one; None where the header does not tell."""
    with open(path, "rb") as file:
        head = file.read(512).split(b",")
    try:
        header, width, height = int(head[2]), int(head[4]), int(head[5])
        size = header + width * height * _BYTES[head[6].decode().strip()]
    except (IndexError, ValueError, KeyError, UnicodeDecodeError):
        return None
    whole, rest = divmod(path.stat().st_size, size)
    return whole, rest > 0


def rows(path: Path, wanted: tuple[int, int], asked: bool) -> Rows:
    """How to read a scan of the wanted shape out of the frames that there are.

    Parameters
    ----------
    wanted : (Ny, Nx)
        As the user or the file says.
    asked : bool
        Whether it was the user.

    Raises
    ------
    ReadError
        If the user wants more frames than there are.
    """
    found = frames(path)
    ny, nx = wanted
    if found is None:
        return Rows(wanted, nx, ())
    count, cut = found
    doubts = [f"{path.name} ends within a frame: it was cut short"] if cut else []
    more = count - ny * nx
    if more < 0:
        raise ReadError(
            f"{path.name} holds {count} frames, not {ny} × {nx} = {ny * nx}: fewer than the scan"
        )
    if more and more % ny == 0:
        back = more // ny
        doubts.append(
            f"the file holds {count} frames, {back} a row more than {ny} × {nx}: the last {back} "
            f"of each row {'was' if back == 1 else 'were'} taken for the beam's way back (flyback) "
            "and left out; if that is wrong, say the shape of the scan"
        )
        return Rows((ny, nx + back), nx, tuple(doubts))
    if more:
        doubts.append(
            f"the file holds {count} frames, {more} more than {ny} × {nx}: those at the end were "
            f"left out{'' if asked else ' (the last row may be unfinished)'}; if the scan had "
            "another shape, rows are sheared: say the shape of the scan"
        )
    return Rows(wanted, nx, tuple(doubts))


def guessed(path: Path, shape: tuple[int, int]) -> str | None:
    """A doubt about a scan shape that nobody said: there is no .hdr file beside the frames."""
    beside = [path.with_suffix(s) for s in (".hdr", ".HDR")]
    if any(p.exists() for p in beside):
        return None
    return (
        f"the file does not say how the scan was shaped; {shape[0]} × {shape[1]} was guessed from "
        "the times of its frames: check it, or say the shape of the scan"
    )
