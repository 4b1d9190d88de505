"""Live delivery: one ring of the newest batches, and a cursor for each subscriber.

The hand-over from history to live needs no lock: offsets are dense, so a subscriber at offset `c`
is served from the ring exactly when the ring still holds `c + 1`, else from the log. Both give the
items after `c` in order; neither can skip or repeat one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from context.block import Block
from context.items import Batch

Frame = TypeVar("Frame")
Matches = Mapping[int, NDArray[np.intp]]  # number of a standing query -> indices of lines
_FEW = 32  # entries looked at one by one
FRAMED_ENTRIES, FRAMED_BYTES = 64, 2 << 20  # newest entries that keep the frames made of them


@dataclass(slots=True)
class Entry:
    """A batch in the ring, and what subscribers with the same wish have made of it."""

    batch: Batch
    matches: Matches = field(default_factory=dict)
    _made: dict[Hashable, object] = field(default_factory=dict)

    @property
    def block(self) -> Block:
        """The batch with its columns."""
        return self.made(Block, lambda entry: Block.of([entry.batch]))

    def made(self, wish: Hashable, make: Callable[[Entry], Frame]) -> Frame:
        """The frame for this wish: made once, then the same object for every subscriber."""
        frame = self._made.get(wish)
        if frame is None:
            frame = self._made[wish] = make(self)
        return frame  # type: ignore[return-value]

    def forget(self) -> None:
        """Drop the frames; whoever still needs one makes it again."""
        self._made.clear()


class Ring:
    """The newest batches, bounded by bytes; always at least the newest one."""

    def __init__(self, max_bytes: int, *, newest: int = -1) -> None:
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._framed: deque[Entry] = deque()
        self._bytes = self._framed_bytes = 0
        self._newest = newest

    @property
    def newest(self) -> int:
        """Offset of the newest item ever added (or the start value)."""
        return self._newest

    def add(self, batch: Batch, matches: Matches | None = None) -> None:
        """Add the batch that follows the newest one, and which lines standing queries match.

        Where history is missing before it the ring begins anew: who was behind reads the log, and
        hears of the gap there.
        """
        if batch.first_offset <= self._newest:
            raise ValueError(f"batch at {batch.first_offset} does not follow {self._newest}")
        if batch.first_offset > self._newest + 1:
            self._clear()
        entry = Entry(batch, matches or {})
        self._entries.append(entry)
        self._frame(entry)
        self._newest = batch.last_offset
        self._bytes += len(batch.text)
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            self._bytes -= len(self._entries.popleft().batch.text)

    def _frame(self, entry: Entry) -> None:
        """Have an entry keep its frames, and older ones forget theirs."""
        self._framed.append(entry)
        self._framed_bytes += len(entry.batch.text)
        while len(self._framed) > 1 and (
            len(self._framed) > FRAMED_ENTRIES or self._framed_bytes > FRAMED_BYTES
        ):
            oldest = self._framed.popleft()
            self._framed_bytes -= len(oldest.batch.text)
            oldest.forget()

    def skip(self, newest: int) -> None:
        """Items up to `newest` are there but do not come: who is behind reads the log."""
        if newest > self._newest:
            self._clear()
            self._newest = newest

    def _clear(self) -> None:
        self._entries.clear()
        self._framed.clear()
        self._bytes = self._framed_bytes = 0

    def after(self, offset: int) -> Sequence[Entry] | None:
        """Entries holding items after `offset`, oldest first; empty if there is nothing newer.

        None where the ring does not reach back to `offset + 1`: read the log instead. The first
        entry may begin before `offset + 1` (a cursor in the middle of a batch).
        """
        if offset >= self._newest:
            return ()
        entries = self._entries
        if not entries or entries[0].batch.first_offset > offset + 1:
            return None
        # Most readers miss the newest few only; a copy of a long ring would cost them dear.
        newest: deque[Entry] = deque()
        for entry in islice(reversed(entries), _FEW):
            newest.appendleft(entry)
            if entry.batch.first_offset <= offset + 1:
                return tuple(newest)
        found = list(entries)
        start = bisect_right(found, offset, key=lambda entry: entry.batch.last_offset)
        return found[start:]
