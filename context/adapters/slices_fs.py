"""Closed groups of bit slices in files, one each, named by the first offset that they speak of.

Read with `pread`, not mapped: a damaged sector is then an error that costs one group its skipping,
not a signal that ends the process.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from context.adapters.blocks_fs import storage_error
from context.bitslices import ClosedGroup
from context.sealed import DamagedBlock
from shared_storage.adapters.durable import sync_folder

log = logging.getLogger(__name__)
_SUFFIX = ".rows"


class SliceFiles:
    """Groups in a folder; for one writing thread, and any that search."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for path in folder.glob("*.tmp"):
            path.unlink()

    def put(self, first: int, group: bytes) -> ClosedGroup:
        """Store a group durably and open it; raises StorageFull."""
        path = self._path(first)
        half = path.with_suffix(".tmp")
        try:
            with half.open("wb", buffering=0) as file:
                rest = memoryview(group)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            half.rename(path)
            sync_folder(self._folder)
        except OSError as exc:
            half.unlink(missing_ok=True)
            raise storage_error(exc) from exc
        return ClosedGroup(_Reader(path))

    def list(self) -> list[ClosedGroup]:
        """All groups in order; those that cannot be read are reported, removed and left out."""
        groups = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                groups.append(ClosedGroup(_Reader(path)))
            except (DamagedBlock, OSError) as exc:
                log.error("damaged group of n-grams %s: %s", path, exc)
                self.delete(int(path.stem))
        return groups

    def delete(self, first: int) -> None:
        """Let go of a group; who searches it just now may finish."""
        self._path(first).unlink(missing_ok=True)

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020d}{_SUFFIX}"


class _Reader:
    """An open file, closed when nobody holds it any more."""

    _fd = -1

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)  # rows lie far apart

    def __call__(self, at: int, length: int) -> bytes:
        return os.pread(self._fd, length, at)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
