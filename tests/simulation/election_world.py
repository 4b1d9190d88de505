"""A small cluster around real elections: a store, a log and a network that do as they are told.

Every `op` of the world is one thing that can happen next; what is never chosen was lost or is
late. After each, the invariants are checked; a breach raises `Broken`.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

from nodes.election import HOLDING, Election, Phase
from nodes.election_events import (
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
from nodes.handoff import HandOffRules
from nodes.heartbeat import Heartbeat
from nodes.lease import Lease
from nodes.membership import Membership, Timings

TERM_BASE = 100
TIMINGS = Timings(heartbeat_s=1.0, suspect_s=1.5, dead_s=2.0)
RULES = Rules(
    step_s=0.5, settle_s=2.0, lease_s=3.0, drain_s=2.0, hand_off=HandOffRules(0.2, 10.0, 30.0)
)
Op = tuple[str, ...]


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Machine:
    """One node: its election and what it knows of the log."""

    election: Election
    score: float
    now: float = 0.0
    number: int = 0
    taking: int = 0  # the term it takes over with
    applied: int = -1  # length of the log as it read it
    appended: int = -1  # length of the log after its own last append
    writing: Write | None = None  # waits for an answer
    answer: Event | None = None


@dataclass
class World:
    """The cluster; `fenced` is whether the log checks what writers expect."""

    machines: dict[str, Machine]
    fenced: bool = True
    lease: Lease = field(default_factory=Lease)
    late: list[tuple[str, Write]] = field(default_factory=list)  # given up, yet on their way
    log: list[tuple[int, str]] = field(default_factory=list)  # (term, writer)
    reigns: dict[int, str] = field(default_factory=dict)  # term -> who led it

    @classmethod
    def of(
        cls, scores: dict[str, float], kind: type[Election] = Election, *, fenced: bool = True
    ) -> World:
        """Nodes with these scores that have just started."""
        machines = {}
        for name, score in scores.items():
            own = Heartbeat(id=name, url=f"http://{name}", life="1", score=score)
            members = Membership(TIMINGS)
            election = kind(own, members, peers=len(scores), term_base=TERM_BASE, rules=RULES)
            machines[name] = Machine(election, score)
        return cls(machines, fenced)

    def ops(self) -> list[Op]:
        """Everything that can happen next."""
        found: list[Op] = [("arrive", str(i)) for i in range(len(self.late))]
        for name, node in self.machines.items():
            found += [("tick", name), ("jump", name)]
            found += [("hear", name, other) for other in self.machines if other != name]
            seen = node.election.lease
            if seen is None or seen.revision < self.lease.revision:
                found.append(("watch", name))
            if node.writing:
                found += [("store", name), ("timeout", name)]
            if node.answer:
                found += [("answer", name), ("lose", name)]
            if node.taking:
                found.append(("apply" if node.applied < 0 else "fence", name))
            if node.election.leading:
                found += [("append", name), ("ask", name), ("stop", name)]
            if node.election.phase is Phase.DRAINING:
                found.append(("drained", name))
        return found

    def do(self, op: Op) -> None:
        """Let one thing happen, then look at the invariants."""
        getattr(self, f"_{op[0]}")(*op[1:])
        self._check()

    def copy(self) -> World:
        """The same world, to go on differently."""
        copied: World = pickle.loads(self.key())
        return copied

    def key(self) -> bytes:
        """Equal for worlds in the same state."""
        return pickle.dumps(self)

    def leaders(self) -> list[str]:
        """Who leads, in its own opinion."""
        return [name for name, node in self.machines.items() if node.election.leading]

    # --- what can happen ---

    def _tick(self, name: str, by_s: float = 1.0) -> None:
        self.machines[name].now += by_s
        self._tell(name, Tick(self._beat(name)))

    def _jump(self, name: str) -> None:
        self._tick(name, 60.0)

    def _hear(self, name: str, other: str) -> None:
        self.machines[other].number += 1
        self.machines[name].election.members.heard(self._beat(other))

    def _watch(self, name: str) -> None:
        self._tell(name, LeaseSeen(self.lease))

    def _store(self, name: str) -> None:
        node = self.machines[name]
        assert node.writing is not None
        node.answer, node.writing = self._put(node.writing), None

    def _timeout(self, name: str) -> None:
        node = self.machines[name]
        assert node.writing is not None
        self.late, node.writing = [*self.late, (name, node.writing)][-2:], None
        self._tell(name, Unanswered())

    def _arrive(self, at: str) -> None:
        self._put(self.late.pop(int(at))[1])

    def _answer(self, name: str) -> None:
        node = self.machines[name]
        assert node.answer is not None
        answer, node.answer = node.answer, None
        self._tell(name, answer)

    def _lose(self, name: str) -> None:
        self.machines[name].answer = None
        self._tell(name, Unanswered())

    def _apply(self, name: str) -> None:
        self.machines[name].applied = len(self.log)

    def _fence(self, name: str) -> None:
        node = self.machines[name]
        term, node.taking = node.taking, 0
        stored = self._write_log(name, term, node.applied)
        node.appended = len(self.log)
        self._tell(name, TookOver(term) if stored else Lost(term))

    def _append(self, name: str) -> None:
        node = self.machines[name]
        term = TERM_BASE + node.election.reign
        if self._write_log(name, term, node.appended):
            node.appended = len(self.log)
        else:
            self._tell(name, Lost(term))

    def _drained(self, name: str) -> None:
        self._tell(name, Drained())

    def _ask(self, name: str) -> None:
        other = next(each for each in self.machines if each != name)
        self._tell(name, LeadAsked(other))

    def _stop(self, name: str) -> None:
        self._tell(name, StopAsked())

    # --- how it works ---

    def _beat(self, name: str) -> Heartbeat:
        node = self.machines[name]
        election = node.election
        return Heartbeat(
            id=name,
            url=f"http://{name}",
            life="1",
            number=node.number,
            leading=election.leading,
            holding=election.reign if election.phase in HOLDING else 0,
            score=node.score,
        )

    def _tell(self, name: str, event: Event) -> None:
        node = self.machines[name]
        for action in node.election.step(event, node.now):
            match action:
                case Write():
                    node.writing = action
                case TakeOver(term):
                    node.taking, node.applied = term, -1
                case Drain():
                    pass

    def _put(self, write: Write) -> Event:
        if write.expected != self.lease.revision:
            return Refused()
        revision = self.lease.revision + 1
        kept = write.lease
        self.lease = Lease(
            holder=kept.holder, url=kept.url, life=kept.life, claim=kept.claim,
            acquired=kept.acquired, to=kept.to, revision=revision,
        )  # fmt: skip
        return Written(revision)

    def _write_log(self, name: str, term: int, expected: int) -> bool:
        if self.fenced and expected != len(self.log):
            return False
        if expected < 0:
            return False
        if self.fenced and self.log and self.log[-1][0] > term:
            return False  # it applied the stream, and saw the newer marker there
        self.log.append((term, name))
        return True

    def _check(self) -> None:
        terms = [term for term, _ in self.log]
        if terms != sorted(terms):
            raise Broken(f"something was appended under an older term: {self.log}")
        for name in self.leaders():
            term = TERM_BASE + self.machines[name].election.reign
            if self.reigns.setdefault(term, name) != name:
                raise Broken(f"{name} and {self.reigns[term]} both lead term {term}")
            if (term, name) not in self.log:
                raise Broken(f"{name} leads term {term} without a marker in the log")
