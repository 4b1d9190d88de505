"""The index at one moment: blocks in order, found by offset, newest or oldest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from context.block import Block, Bounds
from context.cache import BlockCache
from context.items import Batch
from context.tally import Tally


@dataclass(frozen=True, slots=True)
class Entry:
    """A block as a reader finds it: its bounds at once, its content on demand."""

    bounds: Bounds
    block: Callable[[], Block]


class Snapshot:
    """Everything applied up to a moment; stays readable whatever is applied meanwhile.

    Three zones, oldest first: `closed` blocks of which only the bounds are here, the open `tail`,
    and `fresh` batches without columns yet (the first reader makes them, once).
    """

    __slots__ = ("_cache", "_opened", "_tally", "closed", "fresh", "newest", "oldest", "tail")

    def __init__(
        self,
        closed: tuple[Bounds, ...],
        tail: tuple[Block, ...],
        fresh: tuple[Batch, ...],
        tally: Tally,
        cache: BlockCache,
    ) -> None:
        self.closed, self.tail, self.fresh = closed, tail, fresh
        self._tally = tally  # of closed and tail
        self._cache = cache
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

    def newest_first(self, before: int) -> Iterator[Entry]:
        """Blocks holding offsets below `before`, newest first."""
        for i in range(self._at(before - 1), -1, -1):
            yield self[i]

    def oldest_first(self, after: int) -> Iterator[Entry]:
        """Blocks holding offsets above `after`, oldest first."""
        for i in range(max(self._at(after + 1), 0), len(self)):
            if self[i].bounds.last_offset > after:
                yield self[i]

    def item(self, offset: int) -> tuple[float, bytes] | None:
        """When the item became durable, and its line; None where it is not here."""
        if not self.oldest <= offset <= self.newest:
            return None
        block = self[self._at(offset)].block()
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
