"""The leadership of a node with peers: drives `nodes.election` with time, the engine and the log.

One task takes events from a queue, one after the other; what an action needs to wait for runs
beside it and ends in an event of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from nodes.adapters.lease_nats import LeaseStore
from nodes.adapters.signals_nats import Signals
from nodes.election import HOLDING, Election, Phase
from nodes.election_events import (
    Action,
    Drain,
    Drained,
    Event,
    LeadAsked,
    LeaseSeen,
    Lost,
    Refused,
    Rules,
    StopAsked,
    TakeOver,
    Tick,
    TookOver,
    Unanswered,
    Write,
    Written,
)
from nodes.errors import BadHeartbeat, HandOffRefused, LeaseUnreachable, UnknownNode
from nodes.heartbeat import Heartbeat
from nodes.leadership import Member, Peer
from nodes.lease import Lease
from nodes.membership import Membership, State, Timings
from nodes.protocol import near

log = logging.getLogger(__name__)
TICK_S = 0.1
LOOK_S = 0.5  # between two reads of the lease; hints are faster
MEASURE_S = 5.0  # between two measurements of the round trips
AGAIN_S = 0.05  # after a try to take over that failed
HAND_OFF_S = 10.0
STOP_S = 3.0


@dataclass(frozen=True, slots=True)
class Reign:
    """What a node does to begin and to end a reign; both may be tried again."""

    begin: Callable[[int], Awaitable[None]]  # raises an error that tells whether it is `retryable`
    drained: Callable[[], Awaitable[None]]  # no write is under way any more
    leave: Callable[[], Awaitable[None]]  # the engine here is about to end
    written: Callable[[], int]  # newest term that this node's copy of the log has


class Elected:
    """See `nodes.leadership.Leadership`."""

    def __init__(
        self,
        own: Heartbeat,
        store: LeaseStore,
        signals: Signals,
        reign: Reign,
        *,
        peers: int,
        term_base: int,
        rules: Rules,
        timings: Timings,
    ) -> None:
        self.changed = asyncio.Condition()
        self._own, self._store, self._signals, self._reign = own, store, signals, reign
        self._peer = Peer(own.id, own.url)
        self._beats = Membership(timings)
        self._election = Election(own, self._beats, peers=peers, term_base=term_base, rules=rules)
        self._report: Callable[[], Heartbeat] = lambda: own
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._look, self._say = asyncio.Event(), asyncio.Event()
        self.peer_latency_ms: float | None = None
        self.speaks = own.protocol  # read in other threads too
        self._foreign: set[tuple[str, str]] = set()  # id and life of those told of
        self._told: tuple[int, bool, Peer | None] = (self.term, False, None)

    @property
    def term(self) -> int:
        """Its own while it reigns, else the newest seen in the lease or in the log."""
        own = self._election.term
        return own if self._election.phase in HOLDING else max(own, self._reign.written())

    @property
    def leading(self) -> bool:
        """Whether this node may write."""
        return self._election.leading

    @property
    def leader(self) -> Peer | None:
        """Who holds the lease, unless it is dead or gives it up."""
        lease, phase = self._election.lease, self._election.phase
        if lease is None or not lease.holder:
            return None
        if lease.holder == self._peer.id:
            return self._peer if phase in (Phase.TAKING_OVER, Phase.LEADING) else None
        state = self._beats.state(lease.holder)
        if state is State.DEAD or (state is None and self._election.unheard):
            return None
        return Peer(lease.holder, lease.url)

    def protocol_of(self, node_id: str) -> int:
        """As its last heartbeat told."""
        beat = self._beats.beat(node_id)
        return beat.protocol if beat else self._own.protocol

    @property
    def newest_offset(self) -> int:
        """As the newest heartbeats tell: at most `heartbeat_s` old."""
        return self._beats.newest_offset

    def members(self) -> list[Member]:
        """All nodes heard of, by name, this one included."""
        leader, found = self.leader, []
        others = [beat for beat in self._beats.beats() if beat.id != self._peer.id]
        for beat in sorted([*others, self._now()], key=lambda beat: beat.id):
            own = beat.id == self._peer.id
            role = "leader" if leader and beat.id == leader.id else "follower"
            if role == "follower" and beat.observer:
                role = "observer"
            state = State.ALIVE if own else self._beats.state(beat.id) or State.DEAD
            found.append(
                Member(beat, role, state.value, 0.0 if own else self._beats.age_s(beat.id))
            )
        return found

    async def start(self, report: Callable[[], Heartbeat]) -> None:
        """Take part; `report` tells how this node is."""
        self._report = report
        await self._signals.listen(
            self._on_beat, lambda lease: self._events.put_nowait(LeaseSeen(lease))
        )
        for work in (
            self._run(),
            self._beat(),
            self._watch(),
            self._ping_leader(),
            self._ping_all(),
        ):
            self._spawn(work)

    async def hand_to(self, node_id: str) -> int:
        """Make a node the leader; returns its term. Raises UnknownNode, HandOffRefused."""
        if node_id == self._peer.id and self.leading:
            return self.term
        found = self._beats.beat(node_id) if node_id != self._peer.id else self._own
        if found is None:
            raise UnknownNode(f"there is no node {node_id[:80]!r} here")
        if not self.leading:
            raise HandOffRefused("this node does not lead; ask the leader")
        if self._beats.state(node_id) is not State.ALIVE or not found.eligible:
            raise HandOffRefused(f"{node_id} cannot lead now")
        self._events.put_nowait(LeadAsked(node_id))
        return await self._led_by(node_id)

    async def stepped_out(self, term: int) -> None:
        """An append was refused, as a newer term has written: stop leading."""
        self._events.put_nowait(Lost(term))

    async def stop(self) -> None:
        """Hand over where this node leads, and leave."""
        self._own = replace(self._own, stopping=True)
        self._say.set()
        if not self.leading:
            await self._reign.leave()
        self._events.put_nowait(StopAsked())
        try:
            async with asyncio.timeout(STOP_S):
                await self._until(lambda: self._election.phase is Phase.GONE)
        except TimeoutError:
            log.warning("the lease was not given up in time; it expires")

    async def close(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- events ---

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    event = await self._events.get()
            except TimeoutError:
                event = Tick(self._now())
            self._step(event)
            if isinstance(event, LeaseSeen | StopAsked | Drained):  # it may be this node's turn
                self._step(Tick(self._now()))
            if self._election.leading and self._reign.written() > self._election.term:
                self._step(Lost(self._reign.written()))
            await self._tell()

    def _step(self, event: Event) -> None:
        before = self._election.phase
        for action in self._election.step(event, time.monotonic()):
            self._spawn(self._do(action))
        if self._election.phase is not before:
            fields = {"phase": self._election.phase.value, "term": self._election.term}
            log.info("election", extra=fields)
            self._say.set()

    async def _do(self, action: Action) -> None:
        match action:
            case Write(lease, expected):
                await self._write(lease, expected)
            case TakeOver(term):
                await self._take_over(term)
            case Drain():
                await self._reign.drained()
                if self._own.stopping:
                    await self._reign.leave()
                self._events.put_nowait(Drained())

    async def _write(self, lease: Lease, expected: int) -> None:
        try:
            revision = await self._store.write(lease, expected=expected)
        except LeaseUnreachable as exc:
            log.info("the lease was not written", extra={"reason": exc.detail})
            self._events.put_nowait(Unanswered())
            self._look.set()
            return
        if revision is None:
            self._events.put_nowait(Refused())
            self._look.set()
            return
        self._events.put_nowait(Written(revision))
        await self._signals.tell(replace(lease, revision=revision))

    async def _take_over(self, term: int) -> None:
        """Begin a reign; tries again for as long as the lease is held."""
        while self._election.phase is Phase.TAKING_OVER and self._election.term == term:
            try:
                await self._reign.begin(term)
            except Exception as exc:
                if not getattr(exc, "retryable", False) or self._reign.written() > term:
                    log.error("cannot lead", extra={"term": term, "reason": str(exc)})
                    self._events.put_nowait(Lost(max(term, self._reign.written())))
                    return
                log.info("not leading yet", extra={"term": term, "reason": str(exc)})
                await asyncio.sleep(AGAIN_S)
            else:
                self._events.put_nowait(TookOver(term))
                return

    async def _tell(self) -> None:
        now = (self.term, self.leading, self.leader)
        if now != self._told or self._election.phase is Phase.GONE:
            self._told = now
            async with self.changed:
                self.changed.notify_all()

    # --- what happens by itself ---

    def _now(self) -> Heartbeat:
        """How this node is."""
        election = self._election
        return replace(
            self._report(),
            life=self._own.life,
            number=self._own.number,
            url=self._own.url,
            stopping=self._own.stopping,
            observer=self._own.observer,
            replaces=self._own.replaces,
            apart=self._beats.is_apart(self._own.protocol),
            holding=election.reign if election.phase in HOLDING else 0,
        )

    def _on_beat(self, beat: Heartbeat) -> None:
        if beat.id == self._peer.id and beat.life != self._own.life:
            log.error("another node has this one's id", extra={"url": beat.url})
        elif beat.id != self._peer.id:
            self._beats.heard(beat)
            self._compare(beat)

    def _compare(self, beat: Heartbeat) -> None:
        """Find the version that all understand; tell of who understands none of it."""
        own = self._own.protocol
        self.speaks = self._beats.oldest_protocol(own)
        if not near(beat.protocol, own) and (beat.id, beat.life) not in self._foreign:
            self._foreign.add((beat.id, beat.life))
            fields = {"node": beat.id, "protocol": beat.protocol, "own_protocol": own}
            log.error("versions are too far apart: it may not lead here", extra=fields)

    async def _beat(self) -> None:
        while True:
            self._own = replace(self._own, number=self._own.number + 1)
            self._say.clear()
            await self._signals.beat(self._now())
            await _within(self._say, self._beats.timings.heartbeat_s)

    async def _watch(self) -> None:
        """Read the lease now and then, and when a write's answer does not tell what it is."""
        while True:
            self._look.clear()
            try:
                self._events.put_nowait(LeaseSeen(await self._store.read()))
            except (LeaseUnreachable, BadHeartbeat) as exc:
                log.debug("the lease cannot be read", extra={"reason": exc.detail})
            await _within(self._look, LOOK_S)

    async def _ping_leader(self) -> None:
        """Ask for the leader where its heartbeat is late: a killed one is known at once."""
        late_s = self._beats.timings.heartbeat_s + 2 * TICK_S
        while True:
            await asyncio.sleep(TICK_S)
            holder = self._election.lease.holder if self._election.lease else ""
            if holder in ("", self._peer.id) or self._beats.age_s(holder) <= late_s:
                continue
            if await self._signals.ping(holder) is None:
                self._beats.unanswered(holder)

    async def _ping_all(self) -> None:
        """Measure how far away the others are."""
        while True:
            others = [beat.id for beat in self._beats.alive()]
            answers = await asyncio.gather(*(self._signals.ping(node) for node in others))
            took = [1000 * seconds for seconds in answers if seconds and math.isfinite(seconds)]
            self.peer_latency_ms = round(statistics.median(took), 2) if took else None
            await asyncio.sleep(MEASURE_S)

    # --- waiting ---

    async def _led_by(self, node_id: str) -> int:
        def leads() -> bool:
            lease, beat = self._election.lease, self._beats.beat(node_id)
            held = lease is not None and lease.holder == node_id
            return held and beat is not None and beat.leading and beat.term >= self.term

        try:
            async with asyncio.timeout(HAND_OFF_S):
                while not leads():
                    await asyncio.sleep(TICK_S / 2)
        except TimeoutError:
            raise HandOffRefused(f"{node_id} did not take the lead in {HAND_OFF_S:g} s") from None
        return self.term

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.critical("the election failed", exc_info=task.exception())


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
