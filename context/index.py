"""The index: derived from the log, rebuilt from it by applying its batches in order.

Newest items lie in an open *tail*; about 1 MiB of text becomes a closed block. Of a closed block
only the bounds stay for good. Its text and columns are in a cache and come from the log again when
they fell out of it.

One thread applies, any thread reads: the writer makes a new immutable snapshot and swaps it in with
one assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from context.bitslices import BitSlices
from context.block import Block, Bounds
from context.cache import BlockCache, Load
from context.items import Batch
from context.sealed import Head
from context.snapshot import Snapshot
from context.tally import Tally

CLOSE_BYTES = 1 << 20  # text of a closed block; a batch is never split, so one may hold more
_FRESH_BATCHES = 16  # columns are made for so many small batches at once
_FRESH_BYTES = 64 * 1024
_MERGE = 16  # tail blocks joined at once


class Index:
    """What readers ask instead of the log."""

    def __init__(
        self,
        load: Load,
        cache_bytes: int = 256 << 20,
        *,
        sealed: Sequence[Head] = (),
        lost: Collection[Head] = (),
        slices: BitSlices | None = None,
        on_closed: Callable[[Block], None] | None = None,
    ) -> None:
        """Begin with the blocks that are sealed already.

        Parameters
        ----------
        load : reads a closed block again
        sealed : heads of sealed blocks, ascending; what follows them is to be applied
        lost : stand for blocks between them that `load` cannot give: readers hear of each
        slices : tells which sealed blocks may hold a literal
        on_closed : hears of each block that closes, in the applying thread
        """
        self._cache = BlockCache(load, cache_bytes)
        self._slices = slices or BitSlices()
        self._on_closed = on_closed
        self._tally = Tally()  # of closed blocks
        for head in sealed:
            self._tally = self._tally.plus_counts(head.bounds, head.types, head.sources)
        self._fresh_bytes = 0
        known = sorted((*sealed, *lost), key=lambda head: head.bounds.first_offset)
        self._now = self._snapshot(tuple(head.bounds for head in known), (), ())

    def apply(self, batch: Batch) -> None:
        """Take in the batch that follows the newest item.

        The first one may begin anywhere behind what is sealed: history may be missing between.
        """
        now = self._now
        begun = now.tail or now.fresh
        if batch.first_offset <= now.newest or (begun and batch.first_offset != now.newest + 1):
            raise ValueError(f"batch at {batch.first_offset} does not follow {now.newest}")
        closed, tail, fresh = now.closed, now.tail, (*now.fresh, batch)
        self._fresh_bytes += len(batch.text)
        if len(fresh) >= _FRESH_BATCHES or self._fresh_bytes >= _FRESH_BYTES:
            closed, tail = self._settle(closed, (*tail, Block.of(fresh)))
            fresh, self._fresh_bytes = (), 0
        self._now = self._snapshot(closed, tail, fresh)

    def drop(self, heads: Collection[Head], lost: Collection[Head] = ()) -> None:
        """Forget sealed blocks, and `lost` ones; only the applying thread may call this."""
        now, firsts = self._now, {head.bounds.first_offset for head in (*heads, *lost)}
        closed = tuple(each for each in now.closed if each.first_offset not in firsts)
        low = min((each.min_time for each in closed), default=None)
        high = max((each.max_time for each in closed), default=None)
        self._tally = self._tally.minus(heads, low, high)
        for first in firsts:
            self._cache.drop(first)
        self._now = self._snapshot(closed, now.tail, now.fresh)

    def snapshot(self) -> Snapshot:
        """Everything applied so far."""
        return self._now

    def item(self, offset: int) -> tuple[float, bytes] | None:
        """When the item became durable, and its line; None where it is not here."""
        return self._now.item(offset)

    def block(self, bounds: Bounds) -> Block:
        """A closed block, from memory where it is there."""
        return self._cache.get(bounds)

    def stats(self) -> dict[str, Any]:
        """Counts by type and source, sizes, and where the index begins and ends."""
        now = self._now
        tally = now.tally()
        return {
            "items": tally.items,
            "bytes": tally.nbytes,
            "blocks": len(now),
            "cached_bytes": self._cache.nbytes,
            "types": dict(tally.types),
            "sources": dict(tally.sources),
            "oldest_offset": now.oldest,
            "newest_offset": now.newest,
            "oldest_timestamp": tally.min_time,
            "newest_timestamp": tally.max_time,
        }

    def _snapshot(
        self, closed: tuple[Bounds, ...], tail: tuple[Block, ...], fresh: tuple[Batch, ...]
    ) -> Snapshot:
        return Snapshot(
            closed, tail, fresh, tally=self._tally, cache=self._cache, slices=self._slices
        )

    def _settle(
        self, closed: tuple[Bounds, ...], tail: tuple[Block, ...]
    ) -> tuple[tuple[Bounds, ...], tuple[Block, ...]]:
        """Close the tail where it is large enough, else keep the number of its blocks small."""
        if _size(tail) >= CLOSE_BYTES:
            block = Block.join(tail) if len(tail) > 1 else tail[0]
            self._tally = self._tally.plus(block)
            self._cache.put(block)
            if self._on_closed:
                self._on_closed(block)
            return (*closed, block.bounds), ()
        # Each join makes blocks at least four times larger, so a line is copied a few times only.
        last = tail[-_MERGE:]
        while len(last) == _MERGE and 4 * max(len(b.text) for b in last) <= _size(last):
            tail = (*tail[:-_MERGE], Block.join(last))
            last = tail[-_MERGE:]
        return closed, tail


def _size(blocks: Sequence[Block]) -> int:
    return sum(len(block.text) for block in blocks)
