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
from context.block import line_ends
from context.errors import BadCursor, Behind
from context.filter import Filter
from context.hub import Entry, Matches, Ring
from context.items import OPENING, Batch, Cursor
from context.query import Matcher
from context.request import StreamRequest
from context.runs import Run, runs_of
from context.standing import StandingSet
from server import runtime
from server.agent_client import AgentClient, AgentUnavailable, Feed
from server.ipc import FeedBatch

log = logging.getLogger(__name__)
RING_BYTES = 16 << 20
RECONNECT_S = 0.2
AT_ONCE_BYTES = 1 << 20  # of items that are taken before anybody is told of them
PIECE_ITEMS = 1000  # read at once for one subscriber
PIECE_BYTES = 1 << 18
LINGER_S = 30.0  # batches go on coming after the last who waited for some
PATIENCE_S = 5.0  # for an item that a subscriber has seen on a node that is ahead of this one

_NONE = np.empty(0, dtype=np.intp)
_piece = msgspec.msgpack.Decoder(tuple[list[tuple[int, float, bytes]], int, int]).decode


class Attending:
    """Somebody waits for items."""

    __slots__ = ("__weakref__",)


class LiveFeed:
    """Follows the agent's log in a thread of its own and wakes subscribers.

    While nobody waits for items, batches do not come here: only how far the log goes.
    """

    def __init__(
        self,
        agent: AgentClient,
        offload: Callable[[Callable[[], Any]], Any] = lambda work: work(),
        linger_s: float = LINGER_S,
    ) -> None:
        """`offload` runs long work without stopping green threads (`runtime.offload`)."""
        self.agent = agent
        self._linger_s = linger_s
        self._attending: weakref.WeakSet[Attending] = weakref.WeakSet()
        self._attended_at = float("-inf")
        self._source: Feed | None = None
        self._whole = False  # whether batches come
        self._wanting = threading.Lock()
        self.epoch = ""
        self.follows = False  # other nodes may be ahead
        self.subscribers = 0
        self._ring = Ring(RING_BYTES)
        self._lock = runtime.real_lock()  # of the ring, over nothing that could wait
        self._changed = threading.Condition()  # also guards the standing queries
        self._listeners: list[Callable[[Batch], None]] = []
        self._deliver: Callable[[int], None] = _nobody
        self._standing = StandingSet()
        self._compiler = StandingCompiler(self._standing, self._changed, offload)
        self._left: deque[int] = deque()  # standing queries nobody waits for any more

    def on_batch(self, listener: Callable[[Batch], None]) -> None:
        """Call `listener` with every batch that comes from now on and may be for all clients.

        They come while some `attend`.
        """
        self._listeners.append(listener)

    def deliver_by(self, deliver: Callable[[int], None]) -> None:
        """Call `deliver` in the feed's own thread once all that has come is here, each time.

        It is told how many bytes of items that is.
        A thread of its own would have to be woken, which takes a tenth of a millisecond and more.
        """
        self._deliver = deliver

    def attend(self) -> Attending:
        """Have batches come for as long as this is kept."""
        attending = Attending()
        self._attending.add(attending)
        self._settle()
        return attending

    def start(self) -> None:
        """Learn where the log ends, then follow it for ever."""
        start = self.agent.json("as_of")
        self.epoch, self._ring = start["epoch"], Ring(RING_BYTES, newest=start["newest"])
        threading.Thread(target=self._follow, name="feed", daemon=True).start()

    @property
    def newest(self) -> int:
        """Offset of the newest item that has come here."""
        return self._ring.newest

    @property
    def more(self) -> bool:
        """Whether more has come that is not in the ring yet."""
        return self._source is not None and self._source.more

    def stamp(self, node_id: str) -> dict[str, str]:
        """Headers that tell which node answers, and from how much."""
        return {"Context-Node": node_id, "Context-Applied": f"{self.epoch}:{self.newest}"}

    def after(self, offset: int) -> Sequence[Entry] | None:
        """See `Ring.after`."""
        with self._lock:
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
            self._forget_left()
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
                with self._wanting:
                    source = self._source = self.agent.feed(self._ring.newest, whole=self._whole)
                taken = 0
                for frame in source:
                    self._take(frame)
                    taken += len(frame.text)
                    if taken >= AT_ONCE_BYTES or not source.more:
                        self._arrived(taken)
                        taken = 0
            except AgentUnavailable as exc:
                log.warning("waiting for the agent", extra={"reason": str(exc)})
                self._arrived(0)
                with self._changed:
                    self._changed.wait(RECONNECT_S)

    def _settle(self) -> None:
        """Have batches come, or not, as those who attend want it."""
        with self._wanting:  # so that who comes now is seen here, or settles it after this
            now = time.monotonic()
            if self._attending:
                self._attended_at = now
            whole = now - self._attended_at <= self._linger_s
            if whole != self._whole:
                self._whole = whole
                if self._source:
                    self._source.want(whole=whole)

    def _take(self, frame: FeedBatch) -> None:
        batch = Batch(frame.first_offset, frame.count, frame.ingested_at, frame.term, frame.text)
        with self._changed:
            self._forget_left()
            matches = self._matches(batch) if frame.text else {}
            with self._lock:
                if frame.text:
                    self._ring.add(batch, matches)
                else:
                    self._ring.skip(batch.last_offset)
        if frame.text and frame.for_all:
            for listener in self._listeners:
                listener(batch)

    def _forget_left(self) -> None:
        """Remove the queries that nobody waits for any more; call it with the lock."""
        while self._left:
            self._standing.remove(self._left.popleft())

    def _arrived(self, nbytes: int) -> None:
        with self._changed:
            self._changed.notify_all()
        self._deliver(nbytes)
        self._settle()

    def _matches(self, batch: Batch) -> Matches:
        if not len(self._standing):
            return {}
        return self._standing.match(batch.text, line_ends(batch.text))


def _nobody(nbytes: int) -> None:
    """Nobody is delivered to."""


@dataclass(frozen=True, slots=True)
class Gap:
    """History that is gone: cursors of the first and last item missed."""

    missed_from: str
    missed_to: str
    reason: str = ""  # where it is not that history is gone


@dataclass(frozen=True, slots=True)
class Delivery:
    """Matching items in order, and where reading continues."""

    runs: Sequence[Run]
    offset: int

    def items(self) -> list[tuple[int, bytes]]:
        """Each item's offset and JSON."""
        return [item for run in self.runs for item in run.items()]


class Reader:
    """What one wish finds in the log; it keeps no place, so all with the same wish can share it."""

    def __init__(self, feed: LiveFeed, asked: StreamRequest) -> None:
        """A standing query begins to be matched. Raises BadPattern, RateLimited."""
        self._feed, self._attending = feed, feed.attend()
        self._asked = {
            name: value
            for name in StreamRequest.__struct_fields__
            if name != "after" and (value := getattr(asked, name)) is not None
        }
        self._selection = asked.selection()
        self._unfiltered = self._selection.filter == Filter()
        matcher = self._selection.matcher
        self._standing: int | None = None
        self._since = -1
        if matcher and not asked.invert:
            self._standing, self._since = feed.stand(self, matcher)

    def after(
        self, offset: int, until: int | None = None, *, merge: bool = True
    ) -> tuple[Delivery | Gap | None, int]:
        """What follows `offset`, up to `until`, and where reading continues; None at the end.

        Reads the ring while it reaches back so far, else the log, which takes time. A piece is
        bounded; without `merge` it is what one batch holds. Raises AgentUnavailable.
        """
        entries = self._feed.after(offset)
        if entries is None:
            return _cut(*self._from_log(offset), until)
        if not entries or (until is not None and offset >= until):
            return None, offset
        return _cut(*self._from_ring(offset, entries, merge), until)

    def _from_ring(
        self, offset: int, entries: Sequence[Entry], merge: bool
    ) -> tuple[Delivery, int]:
        runs: list[Run] = []
        count, size, reached = 0, 0, offset
        for entry in entries:
            run = entry.made(self._selection, self._matching)
            if entry.batch.first_offset <= offset:  # a cursor in the middle of this batch
                run = run.after(offset)
            if run:
                runs.append(run)
            count += len(run)
            reached = entry.batch.last_offset
            size += len(entry.batch.text)
            if count >= PIECE_ITEMS or size >= PIECE_BYTES or not merge:
                break
        return Delivery(runs, reached), reached

    def _matching(self, entry: Entry) -> Run:
        everything = self._unfiltered and self._selection.matcher is None
        chosen = None if everything else self._lines(entry).tolist()
        return Run.of(self._feed.epoch, entry.batch, chosen)

    def _lines(self, entry: Entry) -> NDArray[np.intp]:
        """What passes; the standing query was matched when the batch came, if it stood then."""
        if self._standing is None or entry.batch.first_offset <= self._since:
            return self._selection.select(entry.block)
        lines = entry.matches.get(self._standing, _NONE)
        if self._unfiltered:
            return lines
        mask = entry.block.mask(self._selection.filter, 0, entry.block.count)
        return lines if mask is None else lines[mask[lines]]

    def _from_log(self, offset: int) -> tuple[Delivery | Gap, int]:
        answer = self._feed.agent.call("read", {"args": self._asked, "after": offset})
        if answer.status != 200:
            raise AgentUnavailable(f"history cannot be read now: {answer.body[:200]!r}")
        found, scanned_to, following = _piece(answer.body)
        epoch, missed_from = self._feed.epoch, offset + 1
        if following > missed_from:
            return Gap(f"{epoch}:{missed_from}", f"{epoch}:{following - 1}"), following - 1
        runs = runs_of(epoch, ((o, at, line[len(OPENING) :]) for o, at, line in found))
        return Delivery(runs, scanned_to), scanned_to


def _cut(found: Delivery | Gap, reached: int, until: int | None) -> tuple[Delivery | Gap, int]:
    if until is None or reached <= until or isinstance(found, Gap):
        return found, reached
    runs = [run.until(until) for run in found.runs]
    return Delivery([run for run in runs if run], until), until


class Place:
    """Where a subscriber begins: after a cursor, or with what comes from now on."""

    def __init__(self, feed: LiveFeed, after: str | None) -> None:
        """Raises BadCursor for text that is no cursor or lies beyond the newest item, Behind where
        another node may have that item. A cursor of another epoch is no error: what was missed is
        told by a gap.
        """
        start = feed.agent.json("as_of")
        self.gap: Gap | None = None
        self.as_of = Cursor(feed.epoch, start["newest"])
        self.offset = self.as_of.offset
        if after is None:
            return
        cursor = Cursor.parse(after)
        if cursor.epoch != feed.epoch:
            lost = Cursor(cursor.epoch, cursor.offset + 1)
            begin = Cursor(feed.epoch, start["oldest"] - 1)
            self.gap, self.offset = Gap(str(lost), str(begin)), begin.offset
        elif cursor.offset > start["newest"] and feed.follows:
            if not feed.wait(cursor.offset - 1, PATIENCE_S):
                raise Behind(f"this node has applied up to {self.as_of} only")
            self.offset = cursor.offset
        elif cursor.offset > start["newest"]:
            raise BadCursor(f"cursor {cursor} lies beyond the newest item {self.as_of}")
        else:
            self.offset = cursor.offset


class Subscription:
    """One subscriber's place in the log: `next` gives what follows, once and in order."""

    def __init__(self, feed: LiveFeed, asked: StreamRequest) -> None:
        """Errors as `Reader` and `Place`."""
        self._feed = feed
        self._reader = Reader(feed, asked)
        place = Place(feed, asked.after)
        self.as_of, self.offset, self._pending = place.as_of, place.offset, place.gap

    def next(self, timeout_s: float) -> Delivery | Gap | None:
        """The next matching items or gap; None when nothing came in time."""
        if self._pending:
            gap, self._pending = self._pending, None
            return gap
        deadline = time.monotonic() + timeout_s  # also while items come that do not match
        while True:
            found, self.offset = self._reader.after(self.offset)
            if isinstance(found, Gap) or (found and found.runs):
                return found
            left = deadline - time.monotonic()
            if left <= 0 or (found is None and not self._feed.wait(self.offset, left)):
                return None
