"""Fewer items for who is behind and asked for it: of each symbol only the newest."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import msgspec

from context.items import OPENING
from context.runs import Run, runs_of


class _Data(msgspec.Struct):
    symbol: Any = None


class _Item(msgspec.Struct):
    data: _Data


_item = msgspec.json.Decoder(_Item).decode


class Conflated:
    """Items of a run that has no newer one of the same symbol; all items without a symbol stay."""

    def __init__(self) -> None:
        self.size = 0  # bytes that are kept
        self._epoch = ""
        # Offset, ingested_at and line without its opening, by symbol, or by offset.
        self._kept: dict[str | int, tuple[int, float, bytes]] = {}
        self._folded: list[int] = []

    def add(self, runs: Iterable[Run]) -> None:
        """Take in the items that follow."""
        for run in runs:
            self._epoch = run.epoch
            for offset, body in zip(run.offsets, run.bodies, strict=True):
                self._add(offset, run.ingested_at, body)

    def _add(self, offset: int, ingested_at: float, body: bytes) -> None:
        symbol = _item(OPENING + body).data.symbol
        key = symbol if isinstance(symbol, str) else offset
        before = self._kept.pop(key, None)
        if before:
            self._folded.append(before[0])
            self.size -= len(before[2])
        self._kept[key] = (offset, ingested_at, body)
        self.size += len(body)

    def runs(self) -> list[Run]:
        """What is kept, in order."""
        self._folded.sort()
        return runs_of(self._epoch, self._kept.values())

    def folded(self, after: int, until: int) -> int:
        """How many items in (after, until] were left out; call `runs` first."""
        return bisect_right(self._folded, until) - bisect_right(self._folded, after)
