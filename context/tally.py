"""How many items of which type and source there are: bounded, whatever producers send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from context.block import Block
from context.column import Column

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
        low, high = block.bounds.min_time, block.bounds.max_time
        return Tally(
            self.items + block.count,
            self.nbytes + block.bounds.nbytes,
            _plus(self.types, block.types),
            _plus(self.sources, block.sources),
            low if self.min_time is None else min(self.min_time, low),
            high if self.max_time is None else max(self.max_time, high),
        )


def _plus(counts: Mapping[str, int], column: Column) -> dict[str, int]:
    new = dict(counts)
    for name, count in zip(column.values, np.bincount(column.codes).tolist(), strict=True):
        key = name if name in new or len(new) < MAX_NAMES else OTHER
        new[key] = new.get(key, 0) + count
    return new
