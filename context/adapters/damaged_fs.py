"""Damaged blocks, kept aside for people: what is in this folder is gone from history.

A file is named by the first and last offset that it stands for, and holds the bytes as they were
found. Whoever has rescued what he could, or gives it up, removes the file: from the next start on
the offsets are simply missing.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from context.damage import unknown_head
from context.sealed import DamagedBlock, Head, read_head
from shared_storage.adapters.durable import sync_folder

log = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{20})-(\d{20})\.block")
_HEAD_BYTES = 1 << 20  # more than any head has


class DamagedFolder:
    """The folder `damaged`, made when the first block comes; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, first: int, last: int, found: bytes) -> Path:
        """Keep the bytes found where items `first` to `last` were, durably. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{first:020d}-{last:020d}.block"
        with path.open("wb") as file:
            file.write(found)
            file.flush()
            os.fsync(file.fileno())
        for folder in (self._folder, self._folder.parent):
            sync_folder(folder)
        return path

    def delete(self, first: int, last: int) -> None:
        """Forget what was kept for these items."""
        (self._folder / f"{first:020d}-{last:020d}.block").unlink(missing_ok=True)

    def list(self) -> list[Head]:
        """What is missing, by first offset: as its head says where that is whole."""
        if not self._folder.is_dir():
            return []
        found = [(path, _NAME.fullmatch(path.name)) for path in sorted(self._folder.iterdir())]
        return [_head(path, int(name[1]), int(name[2])) for path, name in found if name]


def _head(path: Path, first: int, last: int) -> Head:
    try:
        with path.open("rb") as file:
            head = read_head(file.read(_HEAD_BYTES))
    except (DamagedBlock, OSError):
        return unknown_head(first, last)
    bounds = head.bounds
    same = (bounds.first_offset, bounds.last_offset) == (first, last)
    return head if same else unknown_head(first, last)
