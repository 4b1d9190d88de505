"""The election of one node: `step(event, now)` takes what happened and returns what to do.

    FOLLOWING ──> CLAIMING ──> TAKING_OVER ──> LEADING ──> DRAINING ──> RELEASING
        ^  └───────────────────────^              │           │            │
        └──────────┴──────────────┴───────────────┴───────────┴────────────┘
    FOLLOWING ──> GONE

Invariants, whatever clocks, scores and heartbeats say
- A node leads a term only if the store took its claim at the revision that the term counts.
- A claim names the revision it saw; the store refuses it where that is not the newest.
- LEADING comes only after `TookOver`: the stream is applied and fenced by a marker of the term.
- An answer that does not come decides nothing; the lease, once seen, says what happened.
Only who asks, and when, depends on time:
- The best living machine asks at once, each next one `step_s` later.
- At a start, all wait `settle_s` for the peers, so that the best is among them.
- A holder that cannot renew for `lease_s` steps down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

from msgspec.structs import replace

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
from nodes.handoff import HandOff, ranked
from nodes.heartbeat import Heartbeat
from nodes.lease import Lease
from nodes.membership import Membership, State


class Phase(Enum):
    """Where a node is between following and leading."""

    FOLLOWING = "following"
    CLAIMING = "claiming"
    TAKING_OVER = "taking over"
    LEADING = "leading"
    DRAINING = "draining"
    RELEASING = "releasing"
    GONE = "gone"


_F, _R = Phase.FOLLOWING, Phase.RELEASING
LEGAL: Mapping[Phase, frozenset[Phase]] = {
    Phase.FOLLOWING: frozenset({Phase.CLAIMING, Phase.TAKING_OVER, Phase.GONE}),
    Phase.CLAIMING: frozenset({_F, Phase.TAKING_OVER}),
    Phase.TAKING_OVER: frozenset({_F, _R, Phase.LEADING}),
    Phase.LEADING: frozenset({_F, Phase.DRAINING}),
    Phase.DRAINING: frozenset({_F, _R}),
    Phase.RELEASING: frozenset({_F}),
    Phase.GONE: frozenset(),
}
HOLDING = frozenset({Phase.TAKING_OVER, Phase.LEADING, Phase.DRAINING, Phase.RELEASING})


class Election:
    """One node's part in the election; see the module's invariants."""

    def __init__(
        self, own: Heartbeat, members: Membership, *, peers: int, term_base: int, rules: Rules
    ) -> None:
        self.own, self.members, self.rules = own, members, rules
        self.phase = Phase.FOLLOWING
        self.lease: Lease | None = None  # the newest seen
        self.reign = 0  # revision of the claim this node holds the lease by
        self._peers, self._term_base = peers, term_base
        self._claims = 0
        self._pending: Lease | None = None  # the write under way
        self._renewed_at = 0.0
        self._since = 0.0  # awake second in which the phase began
        self._seen_at = 0.0  # awake second of the newest holder
        self._renewal_at = float("-inf")  # awake second of the newest holder's newest renewal
        self._free_since: float | None = None
        self._to = ""  # for whom this node gives the lease up
        self._stopping = False
        self._was_handed = False  # the lease was set free for this node
        self._rests_until = 0.0  # awake second; after it failed to take over
        self._hand_off = HandOff(rules.hand_off)

    @property
    def term(self) -> int:
        """The newest term known."""
        return self._term_base + (self.lease.reign if self.lease else 0)

    @property
    def leading(self) -> bool:
        """Whether this node may write."""
        return self.phase is Phase.LEADING

    @property
    def unheard(self) -> bool:
        """Whether the lease is known for as long as makes a holder dead that never was heard."""
        waited = self.members.awake_s - self._seen_at
        return waited >= self.members.timings.dead_s

    def step(self, event: Event, now: float) -> list[Action]:
        """Take one event at monotonic second `now`; what to do, in order."""
        return list(self._step(event, now))

    def _step(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Tick(own):
                self.own = own
                self.members.tick(now)
                yield from self._on_tick(now)
            case LeaseSeen(lease):
                yield from self._on_seen(lease, now)
            case Written(revision):
                pending, self._pending = self._pending, None
                if pending is not None:
                    yield from self._on_seen(replace(pending, revision=revision), now)
            case Refused() | Unanswered():
                self._pending = None
                if isinstance(event, Unanswered):
                    rests_until = self.members.awake_s + self.rules.step_s
                    self._rests_until = max(self._rests_until, rests_until)
                if self.phase is Phase.CLAIMING:
                    self._become(Phase.FOLLOWING)
            case _:
                yield from self._on_word(event)

    def _on_word(self, event: Event) -> Iterator[Action]:
        match event:
            case TookOver(term) if self.phase is Phase.TAKING_OVER and term == self._own_term:
                self._become(Phase.LEADING)
                self._hand_off = HandOff(self.rules.hand_off)
                if self._was_handed:
                    self._hand_off.done(self.members.awake_s)
            case Lost(term):
                yield from self._on_lost(term)
            case LeadAsked(node) if self.phase is Phase.LEADING and node != self.own.id:
                yield from self._drain(node)
            case Drained() if self.phase is Phase.DRAINING:
                self._become(Phase.RELEASING)
                yield from self._release()
            case StopAsked():
                self._stopping = True
                yield from self._stop()

    # --- what happens by itself ---

    def _on_tick(self, now: float) -> Iterator[Action]:
        waited = self.members.awake_s - self._since
        if self._stopping:
            yield from self._stop()
        if self.phase is Phase.FOLLOWING and self._may_claim():
            yield from self._claim()
        elif self.phase in HOLDING and now - self._renewed_at > self.rules.lease_s:
            self._become(Phase.FOLLOWING)
        elif self.phase in (Phase.TAKING_OVER, Phase.LEADING):
            if not self._pending and now - self._renewed_at >= self.members.timings.heartbeat_s:
                yield self._write(self._held())
            if self.phase is Phase.LEADING:
                others = self._others()
                target = self._hand_off.target(self.own, others, self.members.awake_s)
                yield from self._drain(target) if target else ()
        elif self.phase is Phase.DRAINING and waited >= self.rules.drain_s:
            self._become(Phase.RELEASING)
        if self.phase is Phase.RELEASING:
            yield from self._release()

    def _may_claim(self) -> bool:
        lease = self.lease
        if lease is None or self._pending or self._stopping or not self.own.eligible:
            return False
        awake_s = self.members.awake_s
        if not self._is_free(lease) or not self._has_settled():
            self._free_since = None
            return False
        if self._free_since is None:
            self._free_since = awake_s
        if awake_s < self._rests_until:
            return False
        return awake_s >= self._free_since + self._delay_s(lease)

    def _is_free(self, lease: Lease) -> bool:
        if not lease.holder or lease.holder == self.own.id:
            return True  # no reign of this node goes on while it follows
        timings = self.members.timings
        state, beat = self.members.state(lease.holder), self.members.beat(lease.holder)
        waited = self.members.awake_s - self._seen_at
        if state is None or beat is None:
            return self.unheard
        if state is State.DEAD:
            return not self._lives_unheard(lease)
        holds = (beat.life, beat.holding) == (lease.life, lease.reign)
        return not holds and waited >= timings.suspect_s

    def _lives_unheard(self, lease: Lease) -> bool:
        """Whether the holder renews the lease, though its heartbeats do not come here.

        So it is where two nodes do not reach each other, but both reach a third one: without this
        they would take the lead from each other for ever.
        """
        timings = self.members.timings
        since = self.members.awake_s - self._renewal_at
        lost = self.members.age_s(lease.holder) - since > timings.dead_s / 3
        return since < timings.suspect_s and lost

    def _delay_s(self, lease: Lease) -> float:
        if lease.to == self.own.id:
            return 0.0
        order = [beat.id for beat in ranked([*self._others(), self.own])]
        patience = self.members.timings.suspect_s if lease.to in order else 0.0
        return patience + order.index(self.own.id) * self.rules.step_s

    def _has_settled(self) -> bool:
        all_here = len(self._others()) + 1 >= self._peers
        return all_here or self.members.awake_s >= self.rules.settle_s

    def _others(self) -> list[Heartbeat]:
        return [beat for beat in self.members.alive() if beat.id != self.own.id]

    # --- the lease ---

    def _claim(self) -> Iterator[Action]:
        assert self.lease is not None
        self._claims += 1
        self._was_handed = self.lease.to == self.own.id
        self._become(Phase.CLAIMING)
        own = self.own
        yield self._write(Lease(holder=own.id, url=own.url, life=own.life, claim=self._claims))

    def _write(self, lease: Lease) -> Write:
        assert self.lease is not None
        self._pending = lease
        return Write(lease, self.lease.revision)

    def _held(self) -> Lease:
        own = self.own
        return Lease(
            holder=own.id, url=own.url, life=own.life, claim=self._claims, acquired=self.reign
        )

    def _release(self) -> Iterator[Action]:
        if not self._pending:
            yield self._write(Lease(acquired=self.reign, to=self._to))

    def _on_seen(self, lease: Lease, now: float) -> Iterator[Action]:
        if self.lease is not None and lease.revision <= self.lease.revision:
            return
        if self.lease is None or lease.reign != self.lease.reign or not lease.holder:
            self._seen_at, self._free_since = self.members.awake_s, None
            self._renewal_at = float("-inf")
        else:
            self._renewal_at = self.members.awake_s
        self.lease = lease
        if not self._is_own(lease):
            if self.phase in HOLDING or self.phase is Phase.CLAIMING:
                self._become(Phase.FOLLOWING)
            yield from self._stop() if self._stopping else ()
        elif self.phase in (Phase.FOLLOWING, Phase.CLAIMING) and not lease.acquired:
            self.reign, self._renewed_at = lease.revision, now
            self._become(Phase.TAKING_OVER)
            yield TakeOver(self._own_term)
        elif self.phase in HOLDING and lease.reign == self.reign:
            self._renewed_at = now

    def _is_own(self, lease: Lease) -> bool:
        own = self.own
        return (lease.holder, lease.life, lease.claim) == (own.id, own.life, self._claims)

    @property
    def _own_term(self) -> int:
        return self._term_base + self.reign

    # --- giving it up ---

    def _on_lost(self, term: int) -> Iterator[Action]:
        if self.phase not in HOLDING or term < self._own_term:
            return
        if self.phase is Phase.TAKING_OVER and term == self._own_term:
            self._to, self._rests_until = "", self.members.awake_s + self.rules.settle_s
            self._become(Phase.RELEASING)
            yield from self._release()
        else:
            self._become(Phase.FOLLOWING)

    def _drain(self, to: str) -> Iterator[Action]:
        self._to = to
        self._become(Phase.DRAINING)
        yield Drain()

    def _stop(self) -> Iterator[Action]:
        if self.phase is Phase.LEADING:
            best = ranked(self._others())
            yield from self._drain(best[0].id if best else "")
        elif self.phase is Phase.FOLLOWING:
            self._become(Phase.GONE)

    def _become(self, phase: Phase) -> None:
        if phase not in LEGAL[self.phase]:
            raise AssertionError(f"{self.phase.name} -> {phase.name}")
        self.phase, self._since = phase, self.members.awake_s
        if phase is Phase.FOLLOWING:
            self.reign, self._free_since = 0, None
