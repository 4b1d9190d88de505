"""Lines with their columns: what a search looks at, and the small summary that can exclude it.

A block is derived from batches of the log and nothing else. Its columns hold what filters ask for
(time, type, source, symbol), so that filtering never decodes a line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
class Columns:
    """What is known of each line of a block."""

    ends: NDArray[np.int32]  # (items,) where each line ends, before its newline
    heads: Heads
    runs: tuple[tuple[int, float], ...]  # (index of the first item, ingested_at)


class Block:
    """Consecutive items as text and columns; never changed once made.

    The columns may be made when they are first asked for: a block in whose text nothing is found
    never needs them.
    """

    __slots__ = ("_columns", "_make", "bounds", "nbytes", "text")

    def __init__(
        self, bounds: Bounds, text: bytes, columns: Columns | Callable[[], Columns]
    ) -> None:
        """`text` holds the lines, each ended by a newline."""
        self.bounds, self.text = bounds, text
        self.nbytes = len(text) + 24 * bounds.count  # memory taken by text and columns
        self._columns = columns if isinstance(columns, Columns) else None
        self._make = columns if not isinstance(columns, Columns) else None

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Block:
        """The block of consecutive batches (at least one item), derived from their text.

        Raises ValueError where the batches do not follow each other or miscount their lines.
        """
        text = batches[0].text if len(batches) == 1 else b"".join(b.text for b in batches)
        ends = joined_ends(batches)
        ends = line_ends(text) if ends is None else ends
        runs, first = _runs(batches), batches[0].first_offset
        count = batches[-1].last_offset - first + 1
        if len(ends) != count:
            raise ValueError(f"batches from offset {first} count {count}, hold {len(ends)} lines")
        known = [batch.heads for batch in batches if batch.heads]
        heads = Heads.join(known) if len(known) == len(batches) else Heads.read(text)
        times = heads.timestamps
        low, high = (times.min(), times.max()) if count > 1 else (times[0], times[0])
        bounds = Bounds(
            first,
            first + count - 1,
            float(low),
            float(high),
            heads.types.names(),
            heads.sources.names(),
            heads.symbols.names(),
            len(text),
        )
        return cls(bounds, text, Columns(ends, heads, runs))

    @classmethod
    def join(cls, blocks: Sequence[Block]) -> Block:
        """One block of consecutive blocks; no line is decoded again."""
        shifts = np.cumsum([0, *(len(block.text) for block in blocks[:-1])]).tolist()
        starts = np.cumsum([0, *(block.count for block in blocks[:-1])]).tolist()
        heads = Heads.join([block.columns.heads for block in blocks])
        bounds = Bounds(
            blocks[0].bounds.first_offset,
            blocks[-1].bounds.last_offset,
            min(block.bounds.min_time for block in blocks),
            max(block.bounds.max_time for block in blocks),
            heads.types.names(),
            heads.sources.names(),
            heads.symbols.names(),
            sum(block.bounds.nbytes for block in blocks),
        )
        columns = Columns(
            np.concatenate(
                [block.ends + np.int32(shift) for block, shift in zip(blocks, shifts, strict=True)]
            ),
            heads,
            tuple(
                (start + index, at)
                for block, start in zip(blocks, starts, strict=True)
                for index, at in block.columns.runs
            ),
        )
        return cls(bounds, b"".join(block.text for block in blocks), columns)

    @property
    def columns(self) -> Columns:
        """All columns; two threads that ask at once may both make them, with the same result."""
        made = self._columns
        if made is None:
            make = self._make
            made = self._columns = make() if make else self.columns
            self._make = None
        return made

    @property
    def ends(self) -> NDArray[np.int32]:
        """Where each line ends, before its newline, (items,)."""
        return self.columns.ends

    @property
    def first_offset(self) -> int:
        """Offset of item 0."""
        return self.bounds.first_offset

    @property
    def count(self) -> int:
        """Number of items."""
        return self.bounds.count

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
        runs = self.columns.runs
        return runs[bisect_right(runs, i, key=lambda run: run[0]) - 1][1]

    def mask(self, wish: Filter, first: int, last: int) -> NDArray[np.bool_] | None:
        """Which of items first..last-1 pass the filter; None where all do."""
        masks, heads = [], self.columns.heads
        if wish.types is not None and not wish.types.issuperset(heads.types.values):
            masks.append(heads.types.mask(wish.types, first, last))
        if wish.source is not None and heads.sources.values.keys() != {wish.source}:
            masks.append(heads.sources.mask((wish.source,), first, last))
        if wish.symbol is not None:
            masks.append(heads.symbols.mask((wish.symbol,), first, last))
        if wish.since is not None and self.bounds.min_time < wish.since:
            masks.append(heads.timestamps[first:last] >= wish.since)
        if wish.until is not None and self.bounds.max_time > wish.until:
            masks.append(heads.timestamps[first:last] <= wish.until)
        return reduce(np.logical_and, masks) if masks else None


def line_ends(text: bytes) -> NDArray[np.int32]:
    """Where each line ends, before its newline, (lines,)."""
    return np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _NEWLINE).astype(np.int32)


class Ended(Protocol):
    """Lines, and where each ends where that is at hand."""

    @property
    def text(self) -> bytes:
        """The lines, each with its newline."""

    @property
    def ends(self) -> NDArray[np.int32] | None:
        """Where each line ends, before its newline."""


def joined_ends(parts: Sequence[Ended]) -> NDArray[np.int32] | None:
    """Where each line ends in the text of all parts, None where one is not known."""
    found, shift = [], 0
    for part in parts:
        if part.ends is None:
            return None
        found.append(part.ends + np.int32(shift) if shift else part.ends)
        shift += len(part.text)
    return np.concatenate(found) if len(found) > 1 else found[0]


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
