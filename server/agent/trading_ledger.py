"""The book as the log has it, and the only way to add to it.

An entry is appended to the chain first and taken into the book once it is durable. Where the end of
an append is unknown, or another node may have written, the ledger is not `certain`: the next append
that succeeds reads the book on from the log, which then holds all that came before. So the book
never holds what the log does not, nor in another order, and nothing is ordered while in doubt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from ai_bridge.chain import tail
from ai_bridge.trading.book import Book
from ai_bridge.trading.entries import TYPE, Entry, data_of, entry_of
from context.search import read_on

if TYPE_CHECKING:
    from server.agent.node import Node

log = logging.getLogger(__name__)
KIND, KEY = "trading", "book"  # in the state store: what retention may drop from the log
_DECISION_LINE = b'{"type":"ai_decision",'
STEP_ITEMS, STEP_BYTES = 2000, 4 << 20


class _Saved(msgspec.Struct, frozen=True):
    """The book up to an offset of a log."""

    epoch: str
    scanned: int
    book: Book


class Ledger:
    """Reads the book from the log and appends to it. Not for several tasks at once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.book = Book()
        self.hole: tuple[int, int] | None = None  # damaged offsets that may have held entries
        self.certain = False  # nothing is in the log that the book does not hold
        self.decisions: deque[dict[str, Any]] | None = None  # that came by, where somebody wants
        self._scanned = -1
        self._saved_seq = -1
        self._entries = node.chain.entries(TYPE)
        self._both = node.chain.entries(TYPE, "ai_decision")
        self._reading = asyncio.Lock()

    async def recall(self) -> None:
        """Begin with the book that was saved last, and read on from there."""
        stored = await asyncio.to_thread(self._node.state.get, KIND, KEY)
        saved = msgspec.json.decode(stored.value, type=_Saved) if stored else None
        if saved and saved.epoch == self._node.log.epoch:
            self.book, self._scanned, self._saved_seq = saved.book, saved.scanned, saved.book.seq
        await self.catch_up()

    async def catch_up(self) -> None:
        """Take in what the log holds by now."""
        async with self._reading:
            snapshot = self._node.snapshot()
            while self._scanned < snapshot.newest:
                if self._node.newest_entry <= self._scanned:
                    self._scanned = snapshot.newest
                    return
                before = self._scanned
                lines, scanned = await self._node.scan(
                    read_on,
                    snapshot,
                    before,
                    self._entries if self.decisions is None else self._both,
                    max_items=STEP_ITEMS,
                    max_bytes=STEP_BYTES,
                )
                self._note_holes(before + 1, scanned)
                for _, _, line in lines:
                    self._take(line)
                self._scanned = scanned

    async def tell(self, *entries: Entry) -> None:
        """Make entries durable in this order, then take them in; raises what the log raises."""
        if not entries:
            return
        append = self._node.chain.append
        certain, self.certain = self.certain, False
        stored = await asyncio.gather(*(append(TYPE, data_of(entry)) for entry in entries))
        if certain:
            for entry, data in zip(entries, stored, strict=True):
                self.book.apply(entry, data["chain"]["seq"])
        else:
            await self.catch_up()
        self.certain = True

    async def save(self) -> None:
        """Keep the book beside the log, where it changed."""
        async with self._reading:
            seq, scanned = self.book.seq, self._scanned
            saved = msgspec.json.encode(_Saved(self._node.log.epoch, scanned, self.book))
        if seq == self._saved_seq:
            return
        try:
            await asyncio.to_thread(self._node.state.put, KIND, KEY, saved, now=time.time())
        except Exception as fault:  # the log has it all; the next time comes
            log.warning("the book was not saved", extra={"reason": str(fault)})
            return
        self._saved_seq = seq

    def _take(self, line: bytes) -> None:
        """A line that may be an entry of this log's chain."""
        ends = tail(line)
        if ends is None:
            return
        if line.startswith(_DECISION_LINE):  # without a session nobody follows it
            if self.decisions is not None and self.book.session is not None:
                self.decisions.append(msgspec.json.decode(line)["data"])
        elif ends[0] > self.book.seq:
            self.book.apply(entry_of(msgspec.json.decode(line)["data"]), ends[0])

    def _note_holes(self, first: int, last: int) -> None:
        for lost in self._node.archive.lost_ranges():
            if lost[0] <= last and lost[1] >= first:
                self.hole = lost


async def control(node: Node) -> tuple[bool, int]:
    """Whether the emergency stop is on, and the version of its state."""
    stored = await asyncio.to_thread(node.state.get, "control", "emergency_stop")
    if stored is None:
        return False, 0
    return bool(msgspec.json.decode(stored.value)["emergency_stop"]), stored.version
