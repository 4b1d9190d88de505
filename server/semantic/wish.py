"""Which items a search by meaning may find, decided on columns."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.semantic.columns import Columns


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that must all hold; None asks for nothing. As `context.filter.Filter`."""

    limit: int
    oldest: int = 0  # offsets below are gone
    before: int | None = None
    types: list[str] | None = None
    source: str | None = None
    symbol: str | None = None
    since: float | None = None
    until: float | None = None

    @property
    def open(self) -> bool:
        """Whether every item passes."""
        return self == Wish(limit=self.limit)

    def passing(self, items: Columns, part: slice) -> NDArray[np.int64]:
        """Indices within a stretch of the items that pass, ascending."""
        passes: Any = items["offset"][part] >= self.oldest
        if self.before is not None:
            passes &= items["offset"][part] < self.before
        if self.since is not None:
            passes &= items["timestamp"][part] >= self.since
        if self.until is not None:
            passes &= items["timestamp"][part] <= self.until
        if self.types is not None:
            passes &= np.isin(items["type"][part], _keys(self.types))
        if self.source is not None:
            passes &= items["source"][part] == name_key(self.source)
        if self.symbol is not None:
            passes &= items["symbol"][part] == name_key(self.symbol)
        return np.flatnonzero(passes)


@lru_cache(maxsize=1 << 16)
def name_key(name: str) -> np.uint64:
    """The number that stands for a name in a column; never 0, which means none."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)


def _keys(names: list[str]) -> NDArray[np.uint64]:
    return np.array([name_key(name) for name in names], np.uint64)
