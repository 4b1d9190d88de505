"""Fewer items for who is behind and asked for it: of each symbol only the newest."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import msgspec


class _Data(msgspec.Struct):
    symbol: Any = None


class _Item(msgspec.Struct):
    data: _Data


_item = msgspec.json.Decoder(_Item).decode


class Conflated:
    """Items of a run that has no newer one of the same symbol; all items without a symbol stay."""

    def __init__(self) -> None:
        self.size = 0  # bytes that are kept
        self._kept: dict[str | int, tuple[int, bytes]] = {}  # by symbol, or by offset
        self._folded: list[int] = []

    def add(self, items: Sequence[tuple[int, bytes]]) -> None:
        """Take in the items that follow, each (offset, item JSON)."""
        for offset, item in items:
            symbol = _item(item).data.symbol
            key = symbol if isinstance(symbol, str) else offset
            before = self._kept.pop(key, None)
            if before:
                self._folded.append(before[0])
                self.size -= len(before[1])
            self._kept[key] = (offset, item)
            self.size += len(item)

    def items(self) -> list[tuple[int, bytes]]:
        """What is kept, in order."""
        self._folded.sort()
        return list(self._kept.values())

    def folded(self, after: int, until: int) -> int:
        """How many items in (after, until] were left out; call `items` first."""
        return bisect_right(self._folded, until) - bisect_right(self._folded, after)
