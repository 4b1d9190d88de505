"""Sealed blocks in files of up to 64, one behind the other, each at a multiple of 4096.

Measured (ext4, 195 KB a block): a file a block with its renames and syncs 4.0 ms; behind each other
3.5 ms; eight behind each other with one sync 0.5 ms a block, which is why `put` takes several.

A file is append-only but for two things. A block that is let go gets another magic number in place
and its bytes behind the head go back to the disk, and a file without blocks is removed. What a
crash left half written at the end of the newest file was never promised, and is cut off before the
next write; a file is synced before the next one begins, so nothing else can be half written. Other
damage is stepped over, and told to who knows what the log still has (`mending.py`).
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from context.adapters.blocks_walk import GONE, Found, aligned, read_fresh, stretch, walk
from context.adapters.damaged_fs import DamagedFolder
from context.adapters.punch import punch
from context.errors import ContextError, NotFound, StorageFull
from context.sealed import HEADER, DamagedBlock, Head, head_length, read_head
from shared_storage.adapters.durable import sync_folder

log = logging.getLogger(__name__)

BLOCKS_PER_FILE = 64
_SUFFIX = ".blocks"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    at: int
    length: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A place in a file where a block should be and cannot be read."""

    path: Path
    found: Found
    follows: int  # the last offset of the block before it; -1 where there is none

    def __str__(self) -> str:
        return f"{self.path} at {self.found.at}: {self.found.why}"


class BlockFiles:
    """The BlockStore port in a folder, for any thread; writers wait for each other."""

    def __init__(self, folder: Path, blocks_per_file: int = BLOCKS_PER_FILE) -> None:
        """Read all heads, and check the blocks of the newest file."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._per_file = folder, blocks_per_file
        self.aside = DamagedFolder(folder / "damaged")
        self.damage: list[Damage] = []  # found at the start; who knows the log deals with it
        self.torn: list[Damage] = []  # at the newest file's end: cut off before the next write
        self._last = -1  # newest offset of the block looked at last
        self._lock = threading.Lock()
        self._places: dict[int, _Place] = {}
        self._found: dict[int, Head] = {}
        self._live: dict[Path, int] = {}  # blocks not let go
        self._written = 0  # blocks in the newest file, whether let go or not
        self._end = 0  # where the next one goes
        paths = sorted(folder.glob(f"*{_SUFFIX}"))
        for path in paths:
            self._open(path, newest=path == paths[-1])
        self._path = paths[-1] if paths else self._next(0)

    def put(self, blocks: Sequence[bytes]) -> None:
        """Make blocks durable; see `context.ports.BlockStore`."""
        with self._lock:
            rest = list(blocks)
            while rest:
                if self._written >= self._per_file:
                    self._path = self._next(int(self._path.stem))
                    self._written = 0
                room = self._per_file - self._written
                self._append(rest[:room])
                rest = rest[room:]

    def list(self) -> list[Head]:
        """Heads of all blocks in order."""
        with self._lock:
            return [head for _, head in sorted(self._found.items())]

    def get(self, first: int, *, fresh: bool = False) -> bytes:
        """The block's bytes, `fresh` from the disk itself; raises NotFound, OSError."""
        place, read = self._places.get(first), read_fresh if fresh else os.pread
        if place:
            try:
                with place.path.open("rb", buffering=0) as file:
                    return read(file.fileno(), place.length, place.at)
            except FileNotFoundError:
                pass  # the last block of its file was let go just now
        raise NotFound(f"no block begins at offset {first}")

    def delete(self, firsts: Collection[int]) -> None:
        """Let go of blocks; the space comes back with the last one of a file."""
        with self._lock:
            for first in firsts:
                if first in self._places:
                    del self._found[first]
                    self._let_go(self._places.pop(first))

    def set_aside(self, first: int, last: int | None = None) -> str:
        """Copy a damaged block into the folder `damaged` and let go of it.

        `last` is the last offset that is gone with it, where that is not the block's own.
        """
        if last is None:
            last = self._found[first].bounds.last_offset
        path = self.aside.put(first, last, self.get(first))
        self.delete([first])
        return str(path)

    def set_aside_at(self, damage: Damage, first: int, last: int) -> str:
        """Copy a damaged place, where items `first` to `last` were, and mark it as known."""
        at, length = damage.found.at, damage.found.length
        with damage.path.open("rb", buffering=0) as file:
            path = self.aside.put(first, last, os.pread(file.fileno(), length, at))
        self.mark(damage)
        return str(path)

    def mark(self, damage: Damage) -> None:
        """Mark a damaged place as known: it is stepped over from the next start on."""
        with self._lock, damage.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), stretch(damage.found.length), damage.found.at)

    def cut(self) -> None:
        """Cut off what a crash left half written at the end of the newest file."""
        for damage in self.torn[:1]:
            os.truncate(self._path, self._end)
            log.warning("cut off what a crash left half written in %s", damage)
        self.torn = []

    def _append(self, blocks: Sequence[bytes]) -> None:
        """Write behind the newest file's end and sync; nothing is visible before."""
        places, at = [], self._end
        for block in blocks:
            places.append(_Place(self._path, at, len(block)))
            at = aligned(at + len(block))
        heads = [read_head(block) for block in blocks]
        try:
            self.cut()
            fd = os.open(self._path, os.O_WRONLY)
            try:
                for place, block in zip(places, blocks, strict=True):
                    _write(fd, block, place.at)
                os.fdatasync(fd)
            except OSError:
                os.ftruncate(fd, self._end)
                raise
            finally:
                os.close(fd)
        except OSError as exc:
            self._written = self._per_file  # what the file holds beyond its end is unknown now
            raise storage_error(exc) from exc
        self._end, self._written = at, self._written + len(blocks)
        for head, place in zip(heads, places, strict=True):
            self._keep(head, place)

    def _keep(self, head: Head, place: _Place) -> None:
        first = head.bounds.first_offset
        former = self._places.get(first)
        self._places[first], self._found[first] = place, head
        self._live[place.path] = self._live.get(place.path, 0) + 1
        if former:
            self._let_go(former)

    def _let_go(self, place: _Place) -> None:
        """Mark a block as gone; if that is lost in a crash it comes back, which harms nobody."""
        self._live[place.path] -= 1
        if not self._live[place.path] and place.path != self._path:
            self._remove(place.path)
            return
        with place.path.open("r+b", buffering=0) as file:
            fd = file.fileno()
            start = os.pread(fd, HEADER.size, place.at)
            os.pwrite(fd, GONE, place.at)
            with suppress(DamagedBlock):  # a damaged one keeps its space until the file goes
                begin = aligned(place.at + head_length(start))
                punch(fd, begin, aligned(place.at + place.length))

    def _remove(self, path: Path) -> None:
        self._live.pop(path, None)
        path.unlink(missing_ok=True)

    def _next(self, number: int) -> Path:
        """A new file, durable in its folder."""
        path = self._folder / f"{number + 1:010d}{_SUFFIX}"
        try:
            path.touch(exist_ok=False)
            sync_folder(self._folder)
        except OSError as exc:
            raise storage_error(exc) from exc
        self._end = 0
        return path

    def _open(self, path: Path, *, newest: bool) -> None:
        """Take in a file's blocks; note what is damaged, and what a crash left half written."""
        self._path, self._written, self._end, self._live[path] = path, 0, 0, 0
        damage: list[Damage] = []
        with path.open("rb", buffering=0) as file:
            for found in walk(file.fileno(), check=newest):
                if found.why:
                    damage.append(Damage(path, found, self._last))
                    continue
                self._written, self._end = self._written + 1, aligned(found.at + found.length)
                if found.head:
                    self._last = found.head.bounds.last_offset
                    self._keep(found.head, _Place(path, found.at, found.length))
        torn = [each for each in damage if newest and each.found.at >= self._end]
        self.damage += damage[: len(damage) - len(torn)]
        self.torn = torn
        if not newest and not self._live[path] and not damage:
            self._remove(path)


def _write(fd: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def storage_error(exc: OSError) -> ContextError:
    """What a refused write means to the sender."""
    if exc.errno in _FULL:
        return StorageFull(f"blocks could not be written ({exc.strerror})")
    return ContextError(f"blocks could not be written ({exc})")
