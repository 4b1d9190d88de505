"""Walking over a snapshot in pieces small enough to stop in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from context.ahead import Submit, read_ahead
from context.block import Block
from context.damage import LostBlock, UnavailableBlock
from context.query import Selection
from context.sieve import sieve_of
from context.skipping import plan_of
from context.snapshot import Skipped, Snapshot

Clock = Callable[[], float]  # seconds, monotonic
Found = tuple[int, float, bytes]  # offset, ingested_at, line

MIN_CHUNK = 16 * 1024  # bytes of text between two looks at the clock
MAX_CHUNK = 256 * 1024
_AT_ONCE = 4 << 20  # bytes of a block that are looked through before its columns are read
_LONG = 5  # blocks opened: from here on it pays to compile the query for whole blocks
_QUICK_S = 0.004  # a chunk that took longer makes the next one smaller


@dataclass(slots=True)
class Scanned:
    """What a walk has cost."""

    blocks: int = 0  # looked into
    skipped: int = 0  # excluded by their bounds or n-grams
    nbytes: int = 0  # of text looked at
    missing: list[tuple[int, int]] = field(default_factory=list)  # offsets that cannot be read

    def miss(self, block: UnavailableBlock) -> None:
        """Note a block that cannot be read."""
        if (block.first, block.last) not in self.missing:
            self.missing.append((block.first, block.last))


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
    snapshot: Snapshot,
    selection: Selection,
    before: int,
    scanned: Scanned,
    *,
    clock: Clock,
    submit: Submit | None = None,
) -> Iterator[Step]:
    """Chunks with what passes, from the newest item below `before` down; counts into `scanned`.

    `submit` runs what reads blocks elsewhere, ahead of the search.
    """
    size, sieve = MIN_CHUNK, None
    entries = snapshot.newest_first(before, plan_of(selection))
    if submit:
        entries = read_ahead(entries, submit, lambda each: each.excludes(selection.filter))
    for entry in entries:
        if isinstance(entry, Skipped):
            scanned.skipped += entry.blocks
            yield Step(entry.first_offset)
            continue
        floor = entry.bounds.first_offset
        if entry.bounds.excludes(selection.filter):
            scanned.skipped += 1
            yield Step(floor)
            continue
        try:
            block, last = entry.block(), min(entry.bounds.count, before - floor)
        except UnavailableBlock as exc:  # one block must not hide all the others
            scanned.miss(exc)
            yield Step(floor)
            continue
        scanned.blocks += 1
        if scanned.blocks == _LONG and selection.matcher and not selection.invert:
            sieve = sieve_of(selection.matcher)
        if sieve and block.nbytes <= _AT_ONCE:
            matching = sieve.hits(block)
            if matching is not None:
                scanned.nbytes += len(block.text)
                found = selection.passing(block, matching, last)
                yield Step(floor, block, found[::-1].tolist())
                continue
            sieve = None
        begin = _begin(selection, block)
        scanned.nbytes += begin if begin >= 0 else len(block.text)
        while last and 0 <= begin <= block.ends[last - 1]:
            first, started = block.back(last, size), clock()
            found = selection.select(block, first, last)
            quick = clock() - started < _QUICK_S
            size = min(size * 2, MAX_CHUNK) if quick else max(size // 2, MIN_CHUNK)
            scanned.nbytes += int(block.ends[last - 1]) + 1 - max(block.start(first), begin)
            yield Step(floor + first, block, found[::-1].tolist())
            last = first
        yield Step(floor)


def _begin(selection: Selection, block: Block) -> int:
    """See `Selection.begins`; 0 for a block that is too large to be looked through at once."""
    return selection.begins(block.text) if block.nbytes <= _AT_ONCE else 0


def read_forward(
    snapshot: Snapshot,
    after: int,
    selection: Selection,
    *,
    max_items: int,
    max_bytes: int,
    max_scan_bytes: int = 16 << 20,
) -> tuple[list[Found], int]:
    """What passes after `after`, ascending, and the offset up to which everything was looked at.

    Items are `(offset, ingested_at, line)`. Stops after `max_items`, before lines exceed
    `max_bytes` (but gives at least one), when `max_scan_bytes` of text were seen, and before
    history that is missing: what follows it is read by a call that begins there. Call again with
    the offset returned; at the end it is the snapshot's newest.

    Raises LostBlock where the items right after `after` are gone and might have passed,
    UnreadableBlock where they cannot be read now.
    """
    items: list[Found] = []
    begin = reached = max(after, snapshot.oldest - 1)
    budget = max_scan_bytes
    for entry in snapshot.oldest_first(reached, plan_of(selection)):
        if reached > begin and entry.first_offset > reached + 1:
            return items, reached
        if isinstance(entry, Skipped) or entry.bounds.excludes(selection.filter):
            reached = entry.last_offset
            continue
        try:
            block = entry.block()
        except UnavailableBlock:
            if reached > begin:
                return items, reached
            raise
        base, first = block.first_offset, max(reached + 1 - block.first_offset, 0)
        if _begin(selection, block) < 0:  # its columns are not needed
            reached, budget = entry.last_offset, budget - len(block.text)
            if budget <= 0:
                return items, reached
            continue
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


def read_on(
    snapshot: Snapshot, after: int, selection: Selection, **limits: int
) -> tuple[list[Found], int]:
    """As `read_forward`, but what is gone is passed over: for readers who fold what is there."""
    try:
        return read_forward(snapshot, after, selection, **limits)
    except LostBlock as lost:
        return [], lost.last
