"""Whether the disk has room: no more is taken in while less than a reserve is free.

The reserve is for what must still be written then: blocks that are being sealed, outcomes, an
emergency stop.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from context.errors import StorageFull

CHECK_S = 0.25
_AGAIN = 1.125  # so much of the reserve must be free before anything is taken in again


class DiskRoom:
    """Watches the disk of a folder; for any thread."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder, self._reserve = folder, reserve_bytes
        self._checked, self._full = -CHECK_S, False
        self.free = 0

    @property
    def full(self) -> bool:
        """Whether too little is free; asks the disk at most every `CHECK_S`."""
        now = time.monotonic()
        if now - self._checked >= CHECK_S:
            self._checked, self.free = now, free_bytes(self._folder)
            self._full = self.free < self._reserve * (_AGAIN if self._full else 1)
        return self._full

    def check(self) -> None:
        """Raises StorageFull while the disk is full."""
        if self.full:
            raise StorageFull(
                f"the node's disk has {self.free >> 20} MiB free, and {self._reserve >> 20} MiB"
                " are its reserve (disk_reserve_mb); nothing was stored"
            )


def free_bytes(folder: Path) -> int:
    """Bytes that may be written on the folder's disk."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def used_bytes(folder: Path) -> int:
    """Bytes that the files in a folder take on the disk, holes not counted."""
    used = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        used += found.st_blocks * 512
    return used
