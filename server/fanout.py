"""Live delivery to thousands: what is the same for many is made once, and nobody waits for another.

The feed's thread reads what is new for each group (`server.groups`) and sends it to the members.
A few others help who is behind: each reads on from its own cursor, from the ring, else from the
log, at its own pace. So memory is bounded whatever followers do: a cursor each, and the rest of one
frame.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from context.conflation import Conflated
from context.request import LiveRequest
from context.runs import pieces
from server.agent_client import AgentUnavailable
from server.burst import Link
from server.connections import REFUSED, Poller
from server.delivery_metrics import DeliveryMetrics
from server.forms import FRAME_BYTES, Form
from server.groups import Follower, Group, Home
from server.live import Delivery, Gap, LiveFeed, Place, Reader

log = logging.getLogger(__name__)
WORKERS = 4  # threads for all who are behind
RETRY_S = 0.05
STALL_CHECK_S = 1.0
YIELD_S = 0.01  # of work, after which other green threads get their turn
FOLD_BYTES = 1 << 18
FOLD_PIECES = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """See the settings of the same names."""

    max_delay_ms: float
    max_lag_items: int
    stall_s: float


class Fanout:
    """All groups, served in the feed's thread, and who is behind, served in a few of its own."""

    def __init__(
        self, feed: LiveFeed, poller: Poller, limits: Limits, metrics: DeliveryMetrics
    ) -> None:
        self._feed, self._poller, self._limits, self._metrics = feed, poller, limits, metrics
        self._groups: dict[tuple[bytes, Form], Group] = {}
        self._lock = threading.Lock()  # of the groups' coming and going
        self._behind: queue.Queue[Follower] = queue.Queue()
        self._later: deque[Callable[[], None]] = deque()
        self._asked = threading.Event()  # whether some are to be called
        self._breathed = 0.0

    def start(self) -> None:
        """Deliver from now on."""
        self._feed.deliver_by(self._deliver_new)
        threading.Thread(target=self._retry, name="retries", daemon=True).start()
        for number in range(WORKERS):
            name = f"behind-{number}"
            threading.Thread(target=self._help, name=name, daemon=True).start()

    def prepare(self, asked: LiveRequest, form: Form) -> tuple[Follower, Place]:
        """A new follower, which is sent nothing before `begin`.

        Raises BadCursor, BadPattern, RateLimited, AgentUnavailable.
        """
        place = Place(self._feed, asked.after)
        follower = Follower(self._join(asked, form), place, conflate=bool(asked.conflate))
        return follower, place

    def begin(self, follower: Follower, link: Link) -> None:
        """Send it everything after its cursor from now on."""
        follower.link = link
        self._feed.subscribers += 1
        self._behind.put(follower)

    def move(self, follower: Follower, home: Home) -> None:
        """Go on at the same place in another form and by another way."""
        if follower.group.rehome(follower, home):
            self.wake(follower)

    def leave(self, follower: Follower) -> None:
        """Send it nothing more."""
        if follower.gone:
            return
        follower.group.leave(follower)
        self._part(follower.group)
        self._feed.subscribers -= 1

    def wake(self, follower: Follower) -> None:
        """It may take more."""
        if not follower.gone:
            self._behind.put(follower)

    def later(self, call: Callable[[], None]) -> None:
        """Call in a moment, for links that cannot tell when they are free."""
        self._later.append(call)
        self._asked.set()

    # --- groups ---

    def _join(self, asked: LiveRequest, form: Form) -> Group:
        key = (asked.wish(), form)
        with self._lock:
            group = self._groups.get(key)
            if group is None:
                reader = Reader(self._feed, asked)
                group = self._groups[key] = Group(key, reader, self._feed.newest)
            group.followers += 1
            return group

    def _part(self, group: Group) -> None:
        with self._lock:
            group.followers -= 1
            if not group.followers:
                del self._groups[group.key]

    def _resettle(self, follower: Follower, home: Home) -> None:
        before, follower.group = follower.group, self._join(home.asked, home.form)
        self._part(before)
        follower.home, follower.link = None, home.link

    # --- live ---

    def _deliver_new(self, nbytes: int) -> None:
        """All that has come is in the ring, so many bytes of items."""
        if not self._groups:
            return
        started, longest_s = time.monotonic(), self._limits.max_delay_ms / 1000
        self._round(self._feed.newest, merge=longest_s > 0)
        took = time.monotonic() - started
        self._metrics.rounds.observe(took)
        if self._feed.more:
            # Busy: what comes meanwhile shares the next frames, unless these were full already.
            time.sleep(min(longest_s, took) if nbytes < FRAME_BYTES else 0)

    def _round(self, until: int, *, merge: bool) -> None:
        self._breathed = time.monotonic()
        for group in list(self._groups.values()):
            try:
                done = group.advance(until, merge=merge, breathe=self._breathe)
            except AgentUnavailable:
                continue  # it is restarted; nothing is lost, the cursor stands
            except Exception:
                log.exception("a group could not be served")
                continue
            self._metrics.frames.inc(done.sent)
            for follower in done.left:
                self._metrics.to_behind.inc()
                self._wait_for(follower)
            for follower in done.arriving:
                self.wake(follower)

    def _breathe(self) -> None:
        now = time.monotonic()
        if now - self._breathed > YIELD_S:
            time.sleep(0)
            self._breathed = time.monotonic()

    # --- behind ---

    def _wait_for(self, follower: Follower) -> None:
        follower.link.when_free(partial(self.wake, follower))

    def _retry(self) -> None:
        checked = 0.0
        while True:
            if self._asked.wait(STALL_CHECK_S):
                time.sleep(RETRY_S)
                self._asked.clear()
                for _ in range(len(self._later)):
                    self._later.popleft()()
            if time.monotonic() - checked > STALL_CHECK_S:
                checked = time.monotonic()
                for connection in self._poller.stalled(self._limits.stall_s):
                    self._metrics.to_stalled.inc()
                    connection.abort()

    def _help(self) -> None:
        while True:
            follower = self._behind.get()
            try:
                if not follower.gone and self._step(follower):
                    self._behind.put(follower)
            except AgentUnavailable:  # it is restarted; nothing is lost, the cursor stands
                self.later(partial(self.wake, follower))
            except Exception:
                log.exception("a follower could not be served")
                self.later(partial(self.wake, follower))

    def _step(self, follower: Follower) -> bool:
        """Bring it one piece further; True where it can go on at once."""
        if follower.home:
            self._resettle(follower, follower.home)
        group = follower.group
        if follower.gap is None and group.settle(follower):
            if follower.was_live:
                self._metrics.to_live.inc()
            follower.was_live = True
            return False
        until = group.offset
        if follower.was_live and 0 < self._limits.max_lag_items < until - follower.offset:
            first, last = (f"{self._feed.epoch}:{n}" for n in (follower.offset + 1, until))
            follower.gap, follower.offset = Gap(first, last, reason="too_slow"), until
            self._metrics.to_gap.inc()
        if follower.gap is not None:
            return self._tell_gap(follower, follower.gap)
        if follower.conflate and follower.was_live:
            return self._fold(follower, until)
        found, reached = group.reader.after(follower.offset, until)
        return self._deliver(follower, found, reached)

    def _deliver(self, follower: Follower, found: Delivery | Gap | None, reached: int) -> bool:
        if isinstance(found, Gap):
            follower.gap, follower.offset = found, reached
            return True
        for piece in pieces(found.runs if found else (), FRAME_BYTES):
            frame = follower.group.form.items(piece, 0)
            if not self._offer(follower, frame, piece[-1].offsets[-1]):
                return False
        follower.offset = reached
        return True

    def _tell_gap(self, follower: Follower, gap: Gap) -> bool:
        taken = follower.link.offer(follower.group.form.gap(gap))
        if taken != REFUSED:
            follower.gap = None
        if taken:
            self._wait_for(follower)
        return not taken

    def _fold(self, follower: Follower, until: int) -> bool:
        """One piece for who wants only the newest of each symbol."""
        kept, reached = Conflated(), follower.offset
        for _ in range(FOLD_PIECES):
            found, at = follower.group.reader.after(reached, until)
            if found is None or isinstance(found, Gap):
                break
            kept.add(found.runs)
            reached = at
            if kept.size > FOLD_BYTES:
                break
        if reached == follower.offset:  # a gap comes first
            return self._deliver(follower, found, at)
        for piece in pieces(kept.runs(), FRAME_BYTES):
            offset = piece[-1].offsets[-1]
            folded = kept.folded(follower.offset, offset)
            if folded:
                self._metrics.to_conflated.inc()
                self._metrics.folded.inc(folded)
            frame = follower.group.form.items(piece, folded)
            if not self._offer(follower, frame, offset):
                return False
        follower.offset = reached
        return True

    def _offer(self, follower: Follower, frame: Any, reaches: int) -> bool:
        taken = follower.link.offer(frame)
        if taken != REFUSED:
            follower.offset = reaches
        if taken:
            self._wait_for(follower)
        return not taken
