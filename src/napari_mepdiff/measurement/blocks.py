"""How patterns lie in the blocks in which they are read: always whole, about 16 MB at a time."""

from __future__ import annotations

from collections.abc import Sequence

CHUNK_BYTES = 16 * 1024**2


def chunks(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Chunks of about CHUNK_BYTES: whole patterns, whole scan rows where they fit."""
    pattern = int(shape[2]) * int(shape[3]) * itemsize
    along_x = max(1, min(int(shape[1]), CHUNK_BYTES // max(1, pattern)))
    along_y = (
        max(1, min(int(shape[0]), CHUNK_BYTES // max(1, pattern * along_x)))
        if along_x == shape[1]
        else 1
    )
    return along_y, along_x, int(shape[2]), int(shape[3])
