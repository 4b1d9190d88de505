"""Blocks that cannot be given: which offsets are missing, and whether for good.

UnavailableBlock
├── LostBlock        410  damaged, and no longer in the log: readers go on behind it
└── UnreadableBlock  503  the disk failed just now: nothing is given up, the next try may succeed

DamagedLog           500  what the log holds is not what was written: a node does not start on it
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from context.block import Block, Bounds
from context.errors import ContextError
from context.items import Batch
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


class DamagedLog(ContextError):
    """A row or a line of the log cannot be read; the text says where, and what is to be done."""

    code = "damaged_log"

    def __init__(self, place: str, first: int, why: str) -> None:
        super().__init__(
            f"{place}: the items from offset {first} on cannot be read ({why});"
            " put the data directory's last copy there, or rescue that file by hand"
        )


def bad_line(batches: Iterable[Batch]) -> tuple[int, str] | None:
    """Offset of the first line that is no item, and why; None where all are."""
    for batch in batches:
        lines = batch.text.split(b"\n")
        for i, line in enumerate(lines[: batch.count]):
            try:
                Block.of([Batch(batch.first_offset + i, 1, 0.0, 0, line + b"\n")])
            except (ValueError, msgspec.MsgspecError) as exc:
                return batch.first_offset + i, str(exc)
        if len(lines) != batch.count + 1:
            return batch.first_offset, f"{len(lines) - 1} lines instead of {batch.count}"
    return None


def unknown_head(first: int, last: int) -> Head:
    """Stands for a block of which only the offsets are known: anything may have been in it."""
    bounds = Bounds(first, last, -math.inf, math.inf, None, None, None, 0)
    return Head(bounds, 0, folds=True, types={}, sources={})
