"""Walking over a snapshot in pieces small enough to stop in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from context.block import Block
from context.query import Selection
from context.skipping import plan_of
from context.snapshot import Skipped, Snapshot

Clock = Callable[[], float]  # seconds, monotonic

MIN_CHUNK = 16 * 1024  # bytes of text between two looks at the clock
MAX_CHUNK = 256 * 1024
_QUICK_S = 0.004  # a chunk that took longer makes the next one smaller


@dataclass(slots=True)
class Scanned:
    """What a walk has cost."""

    blocks: int = 0  # looked into
    skipped: int = 0  # excluded by their bounds or n-grams
    nbytes: int = 0  # of text looked at


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk: everything from `floor` up to the start of the walk has been looked at."""

    floor: int
    block: Block | None = None
    found: Sequence[int] = ()  # indices in the block, newest first

    def hits(self) -> Iterator[tuple[Block, int]]:
        """What was found, as block and index."""
        if self.block is not None:
            for i in self.found:
                yield self.block, i


def descend(
    snapshot: Snapshot, selection: Selection, before: int, scanned: Scanned, clock: Clock
) -> Iterator[Step]:
    """Chunks with what passes, from the newest item below `before` down; counts into `scanned`."""
    size = MIN_CHUNK
    for entry in snapshot.newest_first(before, plan_of(selection)):
        if isinstance(entry, Skipped):
            scanned.skipped += entry.blocks
            yield Step(entry.first_offset)
            continue
        floor = entry.bounds.first_offset
        if entry.bounds.excludes(selection.filter):
            scanned.skipped += 1
            yield Step(floor)
            continue
        block, last = entry.block(), min(entry.bounds.count, before - floor)
        scanned.blocks += 1
        while last:
            first, started = block.back(last, size), clock()
            found = selection.select(block, first, last)
            quick = clock() - started < _QUICK_S
            size = min(size * 2, MAX_CHUNK) if quick else max(size // 2, MIN_CHUNK)
            scanned.nbytes += int(block.ends[last - 1]) + 1 - block.start(first)
            yield Step(floor + first, block, found[::-1].tolist())
            last = first


def read_forward(
    snapshot: Snapshot,
    after: int,
    selection: Selection,
    *,
    max_items: int,
    max_bytes: int,
    max_scan_bytes: int = 16 << 20,
) -> tuple[list[tuple[int, float, bytes]], int]:
    """What passes after `after`, ascending, and the offset up to which everything was looked at.

    Items are `(offset, ingested_at, line)`. Stops after `max_items`, before lines exceed
    `max_bytes` (but gives at least one), or when `max_scan_bytes` of text were seen. Call again
    with the offset returned; at the end it is the snapshot's newest.
    """
    items: list[tuple[int, float, bytes]] = []
    reached, budget = max(after, snapshot.oldest - 1), max_scan_bytes
    for entry in snapshot.oldest_first(reached):
        if entry.bounds.excludes(selection.filter):
            reached = entry.bounds.last_offset
            continue
        block = entry.block()
        base, first = block.first_offset, reached + 1 - block.first_offset
        while first < block.count:
            last = block.forth(first, MAX_CHUNK)
            for i in selection.select(block, first, last).tolist():
                line = block.line(i)
                max_bytes -= len(line)
                if max_bytes < 0 and items:
                    return items, base + i - 1
                items.append((base + i, block.ingested_at(i), line))
                if len(items) == max_items:
                    return items, base + i
            reached, budget = base + last - 1, budget - (block.start(last) - block.start(first))
            if budget <= 0:
                return items, reached
            first = last
    return items, reached
