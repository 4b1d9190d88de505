"""What a file of blocks holds, found by walking over it without trusting it.

What seems damaged is read a second time, from the disk and not from memory, before it counts.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from context.sealed import HEADER, MAGIC, DamagedBlock, Head, head_length, read_head, verify

ALIGN = 4096
GONE = b"CTXDEL\r\n"  # the magic number of a block that was let go
_BAD = b"CTXBAD\r\n"  # begins a damaged stretch that is known: magic number, length, checksum
_STRETCH = struct.Struct("<8sQI")


@dataclass(frozen=True, slots=True)
class Found:
    """A block in a file, or a stretch where none can be read."""

    at: int
    length: int
    head: Head | None = None  # None where it cannot be read, or the block was let go
    why: str = ""  # what is damaged
    sure: bool = True  # False where the disk refused to read: it may be whole
    hint: tuple[int, int] = (-1, -1)  # first and last offset that a damaged header claims


def walk(fd: int, *, check: bool) -> Iterator[Found]:
    """All blocks of a file; with `check` their checksums are compared too."""
    at, size = 0, os.fstat(fd).st_size
    lost: Found | None = None  # damage without a head: one report for a stretch of it
    while at < size:
        found = _look(fd, at, size, check)
        following = aligned(at + found.length)
        if found.why and not found.head:
            begin = lost or found
            lost = replace(begin, length=following - begin.at, sure=begin.sure and found.sure)
        else:
            if lost:
                yield lost
            lost = None
            yield found
        at = following
    if lost:
        yield replace(lost, length=size - lost.at)


def stretch(length: int) -> bytes:
    """What marks a damaged stretch as known, so that it is reported once."""
    mark = _STRETCH.pack(_BAD, length, 0)[:-4]
    return mark + zlib.crc32(mark).to_bytes(4, "little")


def read_fresh(fd: int, length: int, at: int) -> bytes:
    """Bytes as they are on the disk, not as they may lie in memory."""
    os.posix_fadvise(fd, at, length, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, length, at)


def aligned(at: int) -> int:
    """The next place where a block may begin."""
    return -(-at // ALIGN) * ALIGN


def _look(fd: int, at: int, size: int, check: bool) -> Found:
    found = _read(fd, at, size, check)
    if not found.why:
        return found
    os.posix_fadvise(fd, at, max(found.length, ALIGN), os.POSIX_FADV_DONTNEED)
    return _read(fd, at, size, check)


def _read(fd: int, at: int, size: int, check: bool) -> Found:
    length, head = 1, None  # without a head to tell, the next block is looked for a page further
    start = b""
    try:
        start = os.pread(fd, ALIGN, at)
        if (known := _known(start)) and at + known <= size:
            return Found(at, known)
        gone = start.startswith(GONE)
        start = MAGIC + start[len(MAGIC) :] if gone else start
        if len(start) >= HEADER.size and head_length(start) > len(start):
            start += os.pread(fd, head_length(start) - len(start), at + len(start))
        head = read_head(start)
        length = head.length
        if check and not gone:
            verify(os.pread(fd, min(length, size - at), at))
    except (DamagedBlock, OSError) as exc:
        sure, hint = isinstance(exc, DamagedBlock), _hint(start)
        return Found(at, length, head, str(exc), sure, hint)
    return Found(at, length, None if gone else head)


def _known(start: bytes) -> int:
    """Length of the stretch marked as damaged that begins here; 0 where none does."""
    if len(start) < _STRETCH.size or not start.startswith(_BAD):
        return 0
    _, length, crc = _STRETCH.unpack_from(start)
    return int(length) if zlib.crc32(start[: _STRETCH.size - 4]) == crc else 0


def _hint(start: bytes) -> tuple[int, int]:
    """What a header claims that may be damaged elsewhere; to be believed where it fits."""
    if len(start) < HEADER.size or not start.startswith(MAGIC):
        return -1, -1
    *_, first, last = HEADER.unpack_from(start)[:6]
    return first, last
