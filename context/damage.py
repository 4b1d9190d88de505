"""Blocks that cannot be given: which offsets are missing, and whether for good.

UnavailableBlock
├── LostBlock        410  damaged, and no longer in the log: readers go on behind it
└── UnreadableBlock  503  the disk failed just now: nothing is given up, the next try may succeed
"""

from __future__ import annotations

import math

from context.block import Bounds
from context.errors import ContextError
from context.sealed import Head


class UnavailableBlock(ContextError):
    """The items from offset `first` to `last` cannot be read."""

    code = "block_unavailable"

    def __init__(self, detail: str, bounds: Bounds) -> None:
        super().__init__(f"items {bounds.first_offset} to {bounds.last_offset}: {detail}")
        self.first, self.last = bounds.first_offset, bounds.last_offset


class LostBlock(UnavailableBlock):
    """The items are gone: their block is damaged, and the log has dropped them."""

    code = "damaged_block"
    status = 410


class UnreadableBlock(UnavailableBlock):
    """The disk did not give the block this time."""

    code = "unreadable_block"
    status = 503
    retryable = True


def unknown_head(first: int, last: int) -> Head:
    """Stands for a block of which only the offsets are known: anything may have been in it."""
    bounds = Bounds(first, last, -math.inf, math.inf, None, None, None, 0)
    return Head(bounds, 0, folds=True, types={}, sources={})
