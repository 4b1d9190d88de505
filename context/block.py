"""Lines with their columns: what a search looks at, and the small summary that can exclude it.

A block is derived from batches of the log and nothing else. Its columns hold what filters ask for
(time, type, source, symbol), so that filtering never decodes a line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from context.column import Column
from context.filter import Filter
from context.heads import Heads
from context.items import Batch

_NEWLINE = 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is always known about a block: small enough to keep for every block of a log."""

    first_offset: int
    last_offset: int
    min_time: float  # event time, unix seconds
    max_time: float
    types: frozenset[str] | None  # None: too many to keep, may hold any
    sources: frozenset[str] | None
    symbols: frozenset[str] | None
    nbytes: int  # of the text

    @property
    def count(self) -> int:
        """Number of items."""
        return self.last_offset - self.first_offset + 1

    def excludes(self, wish: Filter) -> bool:
        """Whether no item of the block can pass the filter."""
        return (
            (wish.since is not None and self.max_time < wish.since)
            or (wish.until is not None and self.min_time > wish.until)
            or _lacks(self.types, wish.types)
            or (wish.source is not None and _lacks(self.sources, (wish.source,)))
            or (wish.symbol is not None and _lacks(self.symbols, (wish.symbol,)))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive items as text and columns; never changed once made."""

    bounds: Bounds
    text: bytes  # lines, each ended by a newline
    ends: NDArray[np.int32]  # (items,) where each line ends, before its newline
    timestamps: NDArray[np.float64]  # (items,) event time, unix seconds
    types: Column
    sources: Column
    symbols: Column
    runs: tuple[tuple[int, float], ...]  # (index of the first item, ingested_at)

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Block:
        """The block of consecutive batches (at least one item), derived from their text.

        Raises ValueError where the batches do not follow each other or miscount their lines.
        """
        text = batches[0].text if len(batches) == 1 else b"".join(b.text for b in batches)
        ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _NEWLINE).astype(np.int32)
        runs, first = _runs(batches), batches[0].first_offset
        count = batches[-1].last_offset - first + 1
        if len(ends) != count:
            raise ValueError(f"batches from offset {first} count {count}, hold {len(ends)} lines")
        heads = [batch.heads for batch in batches if batch.heads]
        columns = Heads.join(heads) if len(heads) == len(batches) else Heads.read(text)
        timestamps = columns.timestamps
        low, high = (timestamps.min(), timestamps.max()) if count > 1 else (timestamps[0],) * 2
        bounds = Bounds(
            first,
            first + count - 1,
            float(low),
            float(high),
            columns.types.names(),
            columns.sources.names(),
            columns.symbols.names(),
            len(text),
        )
        return cls(
            bounds,
            text,
            ends,
            timestamps,
            columns.types,
            columns.sources,
            columns.symbols,
            runs,
        )

    @classmethod
    def join(cls, blocks: Sequence[Block]) -> Block:
        """One block of consecutive blocks; no line is decoded again."""
        shifts = np.cumsum([0, *(len(block.text) for block in blocks[:-1])]).tolist()
        starts = np.cumsum([0, *(block.count for block in blocks[:-1])]).tolist()
        pairs = list(zip(blocks, shifts, strict=True))
        types = Column.join([block.types for block in blocks])
        sources = Column.join([block.sources for block in blocks])
        symbols = Column.join([block.symbols for block in blocks])
        bounds = Bounds(
            blocks[0].bounds.first_offset,
            blocks[-1].bounds.last_offset,
            min(block.bounds.min_time for block in blocks),
            max(block.bounds.max_time for block in blocks),
            types.names(),
            sources.names(),
            symbols.names(),
            sum(block.bounds.nbytes for block in blocks),
        )
        return cls(
            bounds,
            b"".join(block.text for block in blocks),
            np.concatenate([block.ends + np.int32(shift) for block, shift in pairs]),
            np.concatenate([block.timestamps for block in blocks]),
            types,
            sources,
            symbols,
            tuple(
                (start + index, at)
                for block, start in zip(blocks, starts, strict=True)
                for index, at in block.runs
            ),
        )

    @property
    def first_offset(self) -> int:
        """Offset of item 0."""
        return self.bounds.first_offset

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.ends)

    @property
    def nbytes(self) -> int:
        """Memory taken by text and columns."""
        return len(self.text) + 24 * self.count

    def start(self, i: int) -> int:
        """Where line i begins in the text."""
        return int(self.ends[i - 1]) + 1 if i else 0

    def line(self, i: int) -> bytes:
        """Line i without its newline."""
        return self.text[self.start(i) : self.ends[i]]

    def back(self, last: int, nbytes: int) -> int:
        """First line of the about `nbytes` of text, at least one line, that end before `last`."""
        begin = np.int32(int(self.ends[last - 1]) - nbytes)
        return min(int(np.searchsorted(self.ends, begin)), last - 1)

    def forth(self, first: int, nbytes: int) -> int:
        """The line behind about `nbytes` of text, at least one line, that begin with `first`."""
        end = np.int32(self.start(first) + nbytes)
        return max(int(np.searchsorted(self.ends, end)), first + 1)

    def ingested_at(self, i: int) -> float:
        """When item i became durable, unix seconds."""
        return self.runs[bisect_right(self.runs, i, key=lambda run: run[0]) - 1][1]

    def mask(self, wish: Filter, first: int, last: int) -> NDArray[np.bool_] | None:
        """Which of items first..last-1 pass the filter; None where all do."""
        masks = []
        if wish.types is not None and not wish.types.issuperset(self.types.values):
            masks.append(self.types.mask(wish.types, first, last))
        if wish.source is not None and self.sources.values.keys() != {wish.source}:
            masks.append(self.sources.mask((wish.source,), first, last))
        if wish.symbol is not None:
            masks.append(self.symbols.mask((wish.symbol,), first, last))
        if wish.since is not None and self.bounds.min_time < wish.since:
            masks.append(self.timestamps[first:last] >= wish.since)
        if wish.until is not None and self.bounds.max_time > wish.until:
            masks.append(self.timestamps[first:last] <= wish.until)
        return reduce(np.logical_and, masks) if masks else None


def _lacks(known: frozenset[str] | None, wanted: Collection[str] | None) -> bool:
    return known is not None and wanted is not None and known.isdisjoint(wanted)


def _runs(batches: Sequence[Batch]) -> tuple[tuple[int, float], ...]:
    first = following = batches[0].first_offset
    runs: list[tuple[int, float]] = []
    for batch in batches:
        if batch.first_offset != following:
            raise ValueError(f"batch at {batch.first_offset} does not follow {following - 1}")
        if not runs or runs[-1][1] != batch.ingested_at:
            runs.append((batch.first_offset - first, batch.ingested_at))
        following += batch.count
    return tuple(runs)
