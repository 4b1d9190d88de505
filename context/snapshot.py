"""The index at one moment: blocks in order, found by offset, newest or oldest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from context.bitslices import BitSlices, Plan
from context.block import Block, Bounds
from context.cache import BlockCache
from context.damage import LostBlock
from context.items import Batch
from context.tally import Tally

STRIDE = 512  # blocks whose n-grams are asked at once


@dataclass(frozen=True, slots=True)
class Entry:
    """A block as a reader finds it: its bounds at once, its content on demand."""

    bounds: Bounds
    block: Callable[[], Block]  # raises LostBlock, UnreadableBlock
    aside: Callable[[], Block]  # the same, but kept in memory only where there is room

    @property
    def first_offset(self) -> int:
        """Offset of its oldest item."""
        return self.bounds.first_offset

    @property
    def last_offset(self) -> int:
        """Offset of its newest item."""
        return self.bounds.last_offset


@dataclass(frozen=True, slots=True)
class Skipped:
    """Neighbouring blocks that hold nothing of what is sought."""

    blocks: int
    first_offset: int  # of the oldest item of them
    last_offset: int  # of the newest


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
        self._tally = tally  # of closed
        self._cache, self._slices = cache, slices
        self._opened: tuple[Entry, ...] | None = None
        spans = [(each.first_offset, each.last_offset) for each in (closed[:1] + closed[-1:])]
        spans += [(b.first_offset, b.bounds.last_offset) for b in (tail[:1] + tail[-1:])]
        spans += [(b.first_offset, b.last_offset) for b in (fresh[:1] + fresh[-1:])]
        self.oldest = spans[0][0] if spans else 0  # offset of the oldest item
        self.newest = spans[-1][1] if spans else -1  # offset of the newest item

    def spans(self) -> list[tuple[int, int]]:
        """First and last offset of every part: between them nothing is here any more."""
        known = (*self.closed, *(block.bounds for block in self.tail))
        told = [(each.first_offset, each.last_offset) for each in known]
        return told + [(batch.first_offset, batch.last_offset) for batch in self.fresh]

    def __len__(self) -> int:
        """Number of blocks, open ones included."""
        return len(self.closed) + len(self._open())

    def __getitem__(self, i: int) -> Entry:
        """Block i, counted from the oldest."""
        if i >= len(self.closed):
            return self._open()[i - len(self.closed)]
        bounds = self.closed[i]
        cache = self._cache
        return Entry(bounds, lambda: cache.get(bounds), lambda: cache.get(bounds, aside=True))

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
            kept = self._candidates(plan, low, i + 1) if plan else ()
            for at in (np.flatnonzero(kept)[::-1] + low).tolist():
                if at < i:
                    yield self._skipped(at + 1, i + 1)
                yield self[at]
                i = at - 1
            if i >= low:
                yield self._skipped(low, i + 1)
            i = low - 1

    def oldest_first(self, after: int, plan: Plan | None = None) -> Iterator[Entry | Skipped]:
        """Blocks holding offsets above `after`, oldest first; runs that the plan excludes as one.

        A run ends where history is missing, so that nobody steps over that unawares.
        """
        i, count = max(self._at(after + 1), 0), len(self.closed)
        if i < len(self) and self[i].last_offset <= after:
            i += 1
        while plan and i < count:
            end = min(i + STRIDE, count)
            kept = np.flatnonzero(self._candidates(plan, i, end)) + i
            for at in (*kept.tolist(), end):
                yield from self._runs(i, at)
                if at < end:
                    yield self[at]
                i = at + 1
            i = end
        for at in range(i, len(self)):
            yield self[at]

    def _candidates(self, plan: Plan, first: int, end: int) -> NDArray[np.bool_]:
        """Which of closed blocks first..end-1 may match."""
        firsts = np.array([each.first_offset for each in self.closed[first:end]])
        return self._slices.candidates(plan, firsts)

    def _skipped(self, first: int, end: int) -> Skipped:
        bounds = self.closed[first], self.closed[end - 1]
        return Skipped(end - first, bounds[0].first_offset, bounds[1].last_offset)

    def _runs(self, first: int, end: int) -> Iterator[Skipped]:
        """Closed blocks first..end-1 as skipped, each run without a hole in it."""
        begin = first
        for i in range(first, end):
            if i + 1 == end or self.closed[i + 1].first_offset > self.closed[i].last_offset + 1:
                yield self._skipped(begin, i + 1)
                begin = i + 1

    def following(self, after: int) -> int:
        """The first offset above `after` that is here; one above the newest where none is.

        It is `after + 1` unless history is missing there.
        """
        for entry in self.oldest_first(after):
            return max(entry.first_offset, after + 1)
        return self.newest + 1

    def item(self, offset: int) -> tuple[float, bytes] | None:
        """When the item became durable, and its line; None where it is not here.

        Raises LostBlock, UnreadableBlock.
        """
        if not self.oldest <= offset <= self.newest:
            return None
        entry = self[self._at(offset)]
        if offset > entry.bounds.last_offset:  # history is missing here
            return None
        block = entry.block()
        i = offset - block.first_offset
        return block.ingested_at(i), block.line(i)

    def kept(self, offset: int) -> tuple[float, bytes] | None:
        """As `item`, but None too where its block is lost: for those who name offsets they saw."""
        with suppress(LostBlock):
            return self.item(offset)
        return None

    def tally(self) -> Tally:
        """What has been counted, the newest items included."""
        tally = self._tally
        for entry in self._open():
            tally = tally.plus(entry.block())
        return tally

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
    return Entry(block.bounds, lambda: block, lambda: block)
