"""The names at the root of an HDF5 file, from its bytes: without the HDF5 library, in a few reads.

The library may go round in circles in a damaged file with the interpreter locked, and a process
that can be ended takes a second to start. For telling files apart by a name at their root, a few
places of the file format are enough (HDF5 File Format Specification 3.0, II.A, III.C, III.D, III.G,
IV.A).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_STARTS = (0, *(512 << n for n in range(11)))
_MOST = 1 << 16  # bytes of one read, whatever a damaged file says
_MOST_OF_HEAP = 1 << 20

Part = Callable[[int, int], bytes]  # address and length → what the file has there


def root_holds(path: str | Path, name: str) -> bool:
    """Whether a group or dataset `name` stands at the root of an HDF5 file.

    At most about 1 MB is read, whatever the size of the file. False, too, where the file is
    damaged or no HDF5 file.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as handle:

        def part(at: int, length: int) -> bytes:
            if at >= size:  # an undefined address, or a damaged file
                return b""
            handle.seek(at)
            return handle.read(min(length, _MOST))

        base = next((at for at in _STARTS if part(at, 8) == _SIGNATURE), None)
        if base is None:
            return False
        try:
            return _holds(base, part, name.encode())
        except (struct.error, IndexError):  # the file ends in the middle of it
            return False


def _holds(base: int, part: Part, name: bytes) -> bool:
    head = part(base, 112)
    version = head[8]
    if version >= 2:  # links are messages in the root's object header
        (root,) = struct.unpack_from("<Q", head, 36)
        return _new_group_holds(base, root, part, name)
    if head[13:15] != b"\x08\x08":  # sizes of addresses and lengths; h5py writes 8
        return False
    entry = 24 + 4 * 8 + (4 if version == 1 else 0)
    root, kind = struct.unpack_from("<QI", head, entry + 8)
    (heap,) = struct.unpack_from("<Q", head, entry + 32)
    if kind != 1:  # a newer group in an older file
        return _new_group_holds(base, root, part, name)
    names = part(base + heap, 32)
    length, _free, at = struct.unpack_from("<QQQ", names, 8)
    return names.startswith(b"HEAP") and name in part(base + at, length).split(b"\0")


def _new_group_holds(base: int, root: int, part: Part, name: bytes) -> bool:
    """Up to eight links are messages of a group, more are in a heap of its own (IV.A.2.c, g)."""
    for kind, message in _messages(base, root, part):
        if kind == 0x06 and _link_name(message) == name:
            return True
        if kind == 0x02:
            (heap,) = struct.unpack_from("<Q", message, 10 if message[1] & 1 else 2)
            named = bytes([len(name)]) + name  # as a link message has it, after its length
            if any(named in block for block in _heap_blocks(base, heap, part)):
                return True
    return False


def _messages(base: int, root: int, part: Part) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the messages in an object header of version 2 (IV.A.1.b)."""
    head = part(base + root, 40)
    if not head.startswith(b"OHDR"):
        return
    flags = head[5]
    at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    length = int.from_bytes(head[at : at + width], "little")
    blocks = [part(base + root + at + width, length)]
    for _ in range(16):  # a damaged file may send us round
        if not blocks:
            return
        block, at = blocks.pop(), 0
        while at + 4 <= len(block):
            kind, size = struct.unpack_from("<BH", block, at)
            at += 6 if flags & 4 else 4
            message = block[at : at + size]
            at += size
            if kind == 0x10:  # goes on elsewhere: "OCHK", messages, checksum
                start, length = struct.unpack_from("<QQ", message)
                blocks.append(part(base + start, length)[4:-4])
            else:
                yield kind, message


def _heap_blocks(base: int, heap: int, part: Part) -> Iterator[bytes]:
    """The direct blocks of a fractal heap as far as its first table goes (III.G)."""
    head = part(base + heap, 142)
    if not head.startswith(b"FRHP"):
        return
    (columns,) = struct.unpack_from("<H", head, 110)
    (first,) = struct.unpack_from("<Q", head, 112)
    largest_heap, _, root, rows = struct.unpack_from("<HHQH", head, 128)
    if rows == 0:
        yield part(base + root, first)
        return
    table = part(base + root, _MOST)
    at = 5 + 8 + (largest_heap + 7) // 8
    if not table.startswith(b"FHIB"):
        return
    left = _MOST_OF_HEAP
    for row in range(rows):
        size = first << max(0, row - 1)  # the second row is as the first, then each twice the last
        for _ in range(columns):
            (block,) = struct.unpack_from("<Q", table, at)
            at += 8
            left -= size
            if left < 0:
                return
            yield part(base + block, size)


def _link_name(message: bytes) -> bytes:
    flags = message[1]
    at = 2 + (1 if flags & 0x08 else 0) + (8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    length = int.from_bytes(message[at : at + width], "little")
    return message[at + width : at + width + length]
