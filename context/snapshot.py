"""The index at one moment: blocks in order, found by offset, newest or oldest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from context.bitslices import BitSlices, Plan
from context.block import Block, Bounds
from context.cache import BlockCache
from context.items import Batch
from context.tally import Tally

STRIDE = 512  # blocks whose n-grams are asked at once


@dataclass(frozen=True, slots=True)
class Entry:
    """A block as a reader finds it: its bounds at once, its content on demand."""

    bounds: Bounds
    block: Callable[[], Block]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Neighbouring blocks that hold nothing of what is sought."""

    blocks: int
    first_offset: int  # of the oldest of them


class Snapshot:
    """Everything applied up to a moment; stays readable whatever is applied meanwhile.

    Three zones, oldest first: `closed` blocks of which only the bounds are here, the open `tail`,
    and `fresh` batches without columns yet (the first reader makes them, once).
    """

    __slots__ = (
        "_cache",
        "_opened",
        "_slices",
        "_tally",
        "closed",
        "fresh",
        "newest",
        "oldest",
        "tail",
    )

    def __init__(
        self,
        closed: tuple[Bounds, ...],
        tail: tuple[Block, ...],
        fresh: tuple[Batch, ...],
        *,
        tally: Tally,
        cache: BlockCache,
        slices: BitSlices,
    ) -> None:
        self.closed, self.tail, self.fresh = closed, tail, fresh
        self._tally = tally  # of closed and tail
        self._cache, self._slices = cache, slices
        self._opened: tuple[Entry, ...] | None = None
        spans = [(each.first_offset, each.last_offset) for each in (closed[:1] + closed[-1:])]
        spans += [(b.first_offset, b.bounds.last_offset) for b in (tail[:1] + tail[-1:])]
        spans += [(b.first_offset, b.last_offset) for b in (fresh[:1] + fresh[-1:])]
        self.oldest = spans[0][0] if spans else 0  # offset of the oldest item
        self.newest = spans[-1][1] if spans else -1  # offset of the newest item

    def __len__(self) -> int:
        """Number of blocks, open ones included."""
        return len(self.closed) + len(self._open())

    def __getitem__(self, i: int) -> Entry:
        """Block i, counted from the oldest."""
        if i >= len(self.closed):
            return self._open()[i - len(self.closed)]
        bounds = self.closed[i]
        return Entry(bounds, lambda: self._cache.get(bounds))

    def newest_first(self, before: int, plan: Plan | None = None) -> Iterator[Entry | Skipped]:
        """Blocks holding offsets below `before`, newest first; runs that the plan excludes as one.

        Asked of the n-grams in strides, so that a search that finds early asks little.
        """
        i, count = self._at(before - 1), len(self.closed)
        while i >= count or (plan is None and i >= 0):
            yield self[i]
            i -= 1
        while i >= 0:
            low = max(0, i + 1 - STRIDE)
            firsts = np.array([each.first_offset for each in self.closed[low : i + 1]])
            kept = self._slices.candidates(plan, firsts) if plan else ()
            for at in (np.flatnonzero(kept)[::-1] + low).tolist():
                if at < i:
                    yield Skipped(i - at, self.closed[at + 1].first_offset)
                yield self[at]
                i = at - 1
            if i >= low:
                yield Skipped(i + 1 - low, self.closed[low].first_offset)
            i = low - 1

    def oldest_first(self, after: int) -> Iterator[Entry]:
        """Blocks holding offsets above `after`, oldest first."""
        for i in range(max(self._at(after + 1), 0), len(self)):
            if self[i].bounds.last_offset > after:
                yield self[i]

    def following(self, after: int) -> int:
        """The first offset above `after` that is here; one above the newest where none is.

        It is `after + 1` unless history is missing there.
        """
        for entry in self.oldest_first(after):
            return max(entry.bounds.first_offset, after + 1)
        return self.newest + 1

    def item(self, offset: int) -> tuple[float, bytes] | None:
        """When the item became durable, and its line; None where it is not here."""
        if not self.oldest <= offset <= self.newest:
            return None
        entry = self[self._at(offset)]
        if offset > entry.bounds.last_offset:  # history is missing here
            return None
        block = entry.block()
        i = offset - block.first_offset
        return block.ingested_at(i), block.line(i)

    def tally(self) -> Tally:
        """What has been counted, the newest items included."""
        return self._tally.plus(Block.of(self.fresh)) if self.fresh else self._tally

    def _at(self, offset: int) -> int:
        """The last block that begins at or before the offset; -1 where none does."""
        opened = self._open()
        if opened and opened[0].bounds.first_offset <= offset:
            found = bisect_right(opened, offset, key=lambda entry: entry.bounds.first_offset)
            return len(self.closed) + found - 1
        return bisect_right(self.closed, offset, key=lambda bounds: bounds.first_offset) - 1

    def _open(self) -> tuple[Entry, ...]:
        if self._opened is None:
            newest = (Block.of(self.fresh),) if self.fresh else ()
            self._opened = tuple(_ready(block) for block in (*self.tail, *newest))
        return self._opened


def _ready(block: Block) -> Entry:
    return Entry(block.bounds, lambda: block)
