"""Arrays on disk that only grow, one file a column, read through memory maps."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Damaged(Exception):
    """A file holds less than it should."""


class Columns:
    """Columns of equal length. What files hold behind the known length is written over."""

    def __init__(
        self, folder: Path, name: str, kinds: Mapping[str, np.dtype[Any]], count: int
    ) -> None:
        """Open or make the files `NAME.COLUMN`; raises Damaged where one is too short."""
        self.paths = [folder / f"{name}.{column}" for column in kinds]
        self._kinds, self._count = kinds, count
        self._files: dict[str, int] = {}
        for column, path in zip(kinds, self.paths, strict=True):
            file = self._files[column] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            if os.fstat(file).st_size < count * kinds[column].itemsize:
                raise Damaged(f"{path.name} is shorter than {count} rows")
        self._views: dict[str, Any] = {}

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    def __getitem__(self, column: str) -> Any:
        """All rows of a column, read-only; what is appended later is not in it."""
        view = self._views.get(column)
        if view is None:
            view = self._views[column] = self._map(column)
        return view

    def append(self, **columns: Any) -> int:
        """Add rows to all columns; returns the index of the first. None is added on OSError."""
        added = 0
        for column, kind in self._kinds.items():
            rows = np.asarray(columns[column], kind.base)
            added = len(rows)
            _write(self._files[column], rows.tobytes(), self._count * kind.itemsize)
        first = self._count
        self._count += added
        self._views.clear()
        return first

    def sync(self) -> None:
        """Make all rows survive a loss of power."""
        for file in self._files.values():
            os.fdatasync(file)

    def close(self) -> None:
        """Let go of the files; arrays read before stay readable."""
        self._views.clear()
        for file in self._files.values():
            os.close(file)

    def _map(self, column: str) -> Any:
        kind = self._kinds[column]
        size = self._count * kind.itemsize
        if not size:
            return np.empty((0, *kind.shape), kind.base)
        mapped = mmap.mmap(self._files[column], size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, kind.base).reshape(-1, *kind.shape)


def _write(file: int, content: bytes, at: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
