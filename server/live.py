"""The web process's copy of the newest batches, and subscriptions that read on from a cursor."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.adapters.standing_compiler import StandingCompiler
from context.errors import BadCursor
from context.hub import Entry, Matches, Ring
from context.items import Batch, Cursor, encode_item
from context.query import Matcher
from context.request import StreamRequest
from context.standing import StandingSet
from server.agent_client import AgentClient, AgentUnavailable

log = logging.getLogger(__name__)
RING_BYTES = 32 << 20
RECONNECT_S = 0.2

_NONE = np.empty(0, dtype=np.intp)
_piece = msgspec.msgpack.Decoder(tuple[list[tuple[int, float, bytes]], int, int]).decode


class LiveFeed:
    """Follows the agent's log in a thread of its own and wakes subscribers."""

    def __init__(
        self, agent: AgentClient, offload: Callable[[Callable[[], Any]], Any] = lambda work: work()
    ) -> None:
        """`offload` runs long work without stopping green threads (`runtime.offload`)."""
        self.agent = agent
        self.epoch = ""
        self.subscribers = 0
        self._ring = Ring(RING_BYTES)
        self._changed = threading.Condition()
        self._listeners: list[Callable[[Batch], None]] = []
        self._standing = StandingSet()
        self._compiler = StandingCompiler(self._standing, self._changed, offload)
        self._left: deque[int] = deque()  # standing queries nobody waits for any more

    def on_batch(self, listener: Callable[[Batch], None]) -> None:
        """Call `listener` with every batch that comes from now on."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Learn where the log ends, then follow it for ever."""
        start = self.agent.json("as_of")
        self.epoch, self._ring = start["epoch"], Ring(RING_BYTES, newest=start["newest"])
        threading.Thread(target=self._follow, name="feed", daemon=True).start()

    def after(self, offset: int) -> Sequence[Entry] | None:
        """See `Ring.after`."""
        with self._changed:
            return self._ring.after(offset)

    def wait(self, offset: int, timeout_s: float) -> bool:
        """Wait for an item after `offset`; False when none came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ring.newest > offset, timeout_s)

    def stand(self, subscriber: object, matcher: Matcher) -> tuple[int, int]:
        """Match a query against every batch from now on, once for all who wait for it.

        Returns its number in `Entry.matches`, and the newest offset not matched. It ends with the
        subscriber's life. Raises RateLimited where too many run.
        """
        with self._changed:
            number = self._standing.add(
                matcher.query, regex=matcher.regex, ignore_case=matcher.ignore_case
            )
            since = self._ring.newest
        # Only noted there: the collector may run anywhere, also in the middle of a match.
        weakref.finalize(subscriber, self._left.append, number)
        self._compiler.wake()
        return number, since

    def _follow(self) -> None:
        while True:
            try:
                if self.agent.json("as_of")["epoch"] != self.epoch:
                    log.critical("the log was replaced under this process; starting anew")
                    os._exit(1)  # the supervisor starts a fresh one: every cursor here is void
                for frame in self.agent.feed(self._ring.newest):
                    self._add(Batch(*msgspec.structs.astuple(frame)))
            except AgentUnavailable as exc:
                log.warning("waiting for the agent", extra={"reason": str(exc)})
                with self._changed:
                    self._changed.wait(RECONNECT_S)

    def _add(self, batch: Batch) -> None:
        with self._changed:
            while self._left:
                self._standing.remove(self._left.popleft())
            self._ring.add(batch, self._matches(batch))
            self._changed.notify_all()
        for listener in self._listeners:
            listener(batch)

    def _matches(self, batch: Batch) -> Matches:
        if not len(self._standing):
            return {}
        ends = np.flatnonzero(np.frombuffer(batch.text, dtype=np.uint8) == ord("\n"))
        return self._standing.match(batch.text, ends.astype(np.int32))


@dataclass(frozen=True, slots=True)
class Gap:
    """History that is gone: cursors of the first and last item missed."""

    missed_from: str
    missed_to: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Matching items in order, each (offset, item JSON), and where reading continues."""

    items: Sequence[tuple[int, bytes]]
    offset: int


class Subscription:
    """One subscriber's place in the log: `next` gives what follows, once and in order."""

    def __init__(self, feed: LiveFeed, asked: StreamRequest) -> None:
        """Begin after a cursor, or with what comes from now on.

        Raises BadCursor for text that is no cursor or lies beyond the newest item. A cursor of
        another epoch is no error: what was missed is told by a gap.
        """
        self._feed = feed
        self._asked = {
            name: value
            for name, value in msgspec.structs.asdict(asked).items()
            if value is not None and name != "after"
        }
        self._selection = asked.selection()
        matcher = self._selection.matcher
        self._standing: int | None = None
        self._since = -1
        if matcher and not asked.invert:
            self._standing, self._since = feed.stand(self, matcher)
        start = feed.agent.json("as_of")
        self._pending: Gap | None = None
        self.as_of = Cursor(feed.epoch, start["newest"])
        self.offset = self.as_of.offset if asked.after is None else self._begin(asked.after, start)

    def _begin(self, after: str, start: dict[str, Any]) -> int:
        cursor = Cursor.parse(after)
        if cursor.epoch != self._feed.epoch:
            lost = Cursor(cursor.epoch, cursor.offset + 1)
            begin = Cursor(self._feed.epoch, start["oldest"] - 1)
            self._pending = Gap(str(lost), str(begin))
            return begin.offset
        if cursor.offset > start["newest"]:
            raise BadCursor(f"cursor {cursor} lies beyond the newest item {self.as_of}")
        return cursor.offset

    def next(self, timeout_s: float) -> Delivery | Gap | None:
        """The next matching items or gap; None when nothing came in time."""
        if self._pending:
            gap, self._pending = self._pending, None
            return gap
        deadline = time.monotonic() + timeout_s  # also while items come that do not match
        while True:
            entries = self._feed.after(self.offset)
            if entries is None:
                found = self._from_log()
            elif entries:
                found = self._from_ring(entries)
            elif self._feed.wait(self.offset, max(0.0, deadline - time.monotonic())):
                continue
            else:
                return None
            if isinstance(found, Gap) or found.items:
                return found
            if time.monotonic() >= deadline:
                return None

    def _from_ring(self, entries: Sequence[Entry]) -> Delivery:
        items: list[tuple[int, bytes]] = []
        for entry in entries:
            made = entry.made(self._selection, self._matching)
            if entry.batch.first_offset <= self.offset:  # a cursor in the middle of this batch
                made = [item for item in made if item[0] > self.offset]
            items += made
            self.offset = entry.batch.last_offset
            if len(items) >= 1000:
                break
        return Delivery(items, self.offset)

    def _matching(self, entry: Entry) -> list[tuple[int, bytes]]:
        batch, block = entry.batch, entry.block
        first, epoch = batch.first_offset, self._feed.epoch
        return [
            (first + i, encode_item(epoch, first + i, batch.ingested_at, block.line(i)))
            for i in self._lines(entry).tolist()
        ]

    def _lines(self, entry: Entry) -> NDArray[np.intp]:
        """What passes; the standing query was matched when the batch came, if it stood then."""
        if self._standing is None or entry.batch.first_offset <= self._since:
            return self._selection.select(entry.block)
        lines = entry.matches.get(self._standing, _NONE)
        mask = entry.block.mask(self._selection.filter, 0, entry.block.count)
        return lines if mask is None else lines[mask[lines]]

    def _from_log(self) -> Delivery | Gap:
        answer = self._feed.agent.call("read", {"args": self._asked, "after": self.offset})
        if answer.status != 200:
            raise AgentUnavailable(f"history cannot be read now: {answer.body[:200]!r}")
        found, scanned_to, following = _piece(answer.body)
        epoch, missed_from = self._feed.epoch, self.offset + 1
        if following > missed_from:
            self.offset = following - 1
            return Gap(f"{epoch}:{missed_from}", f"{epoch}:{following - 1}")
        self.offset = scanned_to
        return Delivery([(o, encode_item(epoch, o, at, line)) for o, at, line in found], scanned_to)
