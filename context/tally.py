"""How many items of which type and source there are: bounded, whatever producers send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from context.block import Block, Bounds
from context.column import Column
from context.sealed import Head

MAX_NAMES = 1000  # counted apart; the names beyond are counted together as "other"
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts so far; never changed, `plus` makes the next one."""

    items: int = 0
    nbytes: int = 0
    types: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    min_time: float | None = None  # event time, unix seconds
    max_time: float | None = None

    def plus(self, block: Block) -> Tally:
        """The tally with a block's items counted."""
        heads = block.columns.heads
        return self.plus_counts(block.bounds, counts(heads.types), counts(heads.sources))

    def plus_counts(
        self, bounds: Bounds, types: Mapping[str, int], sources: Mapping[str, int]
    ) -> Tally:
        """The tally with a block counted of which only the numbers are at hand."""
        low, high = bounds.min_time, bounds.max_time
        return Tally(
            self.items + bounds.count,
            self.nbytes + bounds.nbytes,
            _plus(self.types, types),
            _plus(self.sources, sources),
            low if self.min_time is None else min(self.min_time, low),
            high if self.max_time is None else max(self.max_time, high),
        )

    def minus(self, heads: Iterable[Head], low: float | None, high: float | None) -> Tally:
        """The tally without blocks that were counted; `low` and `high` bound what is left."""
        items, nbytes = self.items, self.nbytes
        types, sources = dict(self.types), dict(self.sources)
        for head in heads:
            items, nbytes = items - head.bounds.count, nbytes - head.bounds.nbytes
            _take(types, head.types)
            _take(sources, head.sources)
        return Tally(items, nbytes, types, sources, low, high)


def _take(counted: dict[str, int], less: Mapping[str, int]) -> None:
    for name, count in less.items():
        key = name if name in counted else OTHER
        counted[key] = counted.get(key, 0) - count
        if counted[key] <= 0:
            del counted[key]


def counts(column: Column) -> dict[str, int]:
    """How many items have each text."""
    return dict(zip(column.values, np.bincount(column.codes).tolist(), strict=True))


def _plus(counted: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    new = dict(counted)
    for name, count in more.items():
        key = name if name in new or len(new) < MAX_NAMES else OTHER
        new[key] = new.get(key, 0) + count
    return new
