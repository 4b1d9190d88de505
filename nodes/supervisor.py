"""The children of one node: order of start, restarts with growing pauses, clean stop.

Nothing here starts a process. `Supervisor.step(event, now)` takes what happened and returns what
to do; `nodes.adapters.children` does it. `now` is a monotonic second.

    NEW ──> STARTING ──> READY          NEW       not started yet
               ^  │        │            STARTING  runs, has not said that it is ready
               │  v        v            WAITING   ended; starts again when its pause is over
               WAITING <───┘            STOPPING  asked to end, or told to
    any ──> STOPPING ──> GONE           GONE      ended, and stays so

Invariants
- A child is spawned only in NEW or WAITING: never two processes of one name.
- A child is first spawned only after every *required* child before it was ready once, unless it
  waits for them itself.
- The pause before a restart doubles from 0.2 s to 10 s; 60 s in READY reset it.
- A required child that was never ready and fails to start 5 times in a row, or refuses to, stops
  the whole node. One that was ready is tried for ever, as an optional one is: what keeps it from
  starting now, such as a full disk, passes, and the others go on meanwhile.
- A stop asks the children in reverse order, each when those after it have ended or have used up
  their share of the grace; when the grace is over, whoever is left is killed.
- `Finish` is the last action, given once, when no child is alive.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
HEALTHY_AFTER_S = 60.0
MAX_FAILED_STARTS = 5


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process of the node; `env` is added to the supervisor's own environment."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_timeout_s: float = 30.0
    required: bool = True  # without it the node is not ready
    waits: bool = False  # by itself for those before it: it loads while they do


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; nothing else happened."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A child can do its work; `detail` is what it told, such as its address."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A child said why it cannot start, and is about to end."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A child has ended: its exit status, or minus the signal that ended it."""

    name: str
    code: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Someone asked the node to stop; `at_once` leaves the children no time."""

    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the child's process."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the child to end (SIGTERM)."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the child now, with all that it started (SIGKILL)."""

    name: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Every required child is ready, for the first time."""

    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Say:
    """One line for the operator."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """No child is alive any more: the node's exit status, and why where it is not 0."""

    code: int
    reason: str = ""


Event = Tick | Ready | Refused | Exited | StopAsked
Action = Spawn | Terminate | Kill | Announce | Say | Finish


class State(Enum):
    """Where a child is in its life."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPING = "stopping"
    GONE = "gone"


LEGAL: Mapping[State, frozenset[State]] = {
    State.NEW: frozenset({State.STARTING, State.GONE}),
    State.STARTING: frozenset({State.READY, State.WAITING, State.STOPPING, State.GONE}),
    State.READY: frozenset({State.WAITING, State.STOPPING, State.GONE}),
    State.WAITING: frozenset({State.STARTING, State.GONE}),
    State.STOPPING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}
ALIVE = frozenset({State.STARTING, State.READY, State.STOPPING})


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    state: State = State.NEW
    since: float = 0.0  # when the state began
    detail: str = ""
    reason: str = ""  # why this life ends, where known before it does
    refused: bool = False  # the child itself gave the reason
    was_ready: bool = False
    killed: bool = False  # in this life
    failed_starts: int = 0  # in a row
    pauses: int = 0  # since it was healthy

    def become(self, state: State, now: float) -> None:
        if state not in LEGAL[self.state]:
            raise AssertionError(f"{self.spec.name}: {self.state.name} -> {state.name}")
        self.state, self.since = state, now

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def pause_s(self) -> float:
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self.pauses - 1))


class Supervisor:
    """Decides what to do with a node's children; see the module's invariants."""

    def __init__(self, specs: Sequence[ChildSpec], *, stop_grace_s: float = 8.0) -> None:
        self._children = {spec.name: _Child(spec) for spec in specs}
        if len(self._children) != len(specs):
            raise ValueError("two children share a name")
        self._grace_s = stop_grace_s
        self._turn_s = stop_grace_s / max(1, len(specs))
        self._now = float("-inf")
        self._announced = False
        self._stop_at: float | None = None
        self._finish = Finish(0)
        self._finished = False

    def step(self, event: Event, now: float) -> list[Action]:
        """Take one event and return what to do about it, in order."""
        self._now = now
        actions: list[Action] = []
        match event:
            case Ready(name, detail):
                actions += self._on_ready(self._children[name], detail, now)
            case Refused(name, reason):
                self._children[name].reason, self._children[name].refused = reason, True
            case Exited(name, code):
                actions += self._on_exited(self._children[name], code, now)
            case StopAsked(at_once):
                self._begin_stop(now)
                if at_once:
                    actions += self._kill_all("was not given time to stop", now)
        actions += self._run(now) if self._stop_at is None else self._stop(now)
        return actions

    def next_tick(self) -> float | None:
        """When `Tick` is due at the latest; None when only events matter."""
        due = [when for child in self._children.values() for when in self._due(child)]
        if self._stop_at is not None:
            due.append(self._stop_at + self._grace_s)
        # What was due up to the last step has been acted on then.
        return min((when for when in due if when > self._now), default=None)

    def _due(self, child: _Child) -> Iterator[float]:
        if child.state is State.WAITING:
            yield child.since + child.pause_s
        elif child.state is State.STARTING and not child.killed:
            yield child.since + child.spec.ready_timeout_s
        elif child.state is State.STOPPING:
            yield child.since + self._turn_s

    def _on_ready(self, child: _Child, detail: str, now: float) -> Iterator[Action]:
        if child.state is State.STARTING:
            child.become(State.READY, now)
            if child.was_ready:
                yield Say(f"{child.spec.name} is ready again")
            child.detail, child.was_ready, child.failed_starts = detail, True, 0

    def _on_exited(self, child: _Child, code: int, now: float) -> Iterator[Action]:
        started, how = child.state is not State.STARTING, child.reason or _how(code)
        if child.state is State.READY and now - child.since >= HEALTHY_AFTER_S:
            child.pauses = 0
        if self._stop_at is not None:
            child.become(State.GONE, now)
            return
        child.become(State.WAITING, now)
        child.pauses += 1
        child.failed_starts += 0 if started else 1
        hopeless = child.refused or child.failed_starts >= MAX_FAILED_STARTS
        if hopeless and child.spec.required and not child.was_ready:
            self._begin_stop(now, f"{child.spec.name} cannot start: {how}")
        else:
            what = "ended" if started else "did not start"
            again = f"starting it again in {child.pause_s:g} s"
            yield Say(f"{child.spec.name} {what} ({how}); {again}")

    def _run(self, now: float) -> Iterator[Action]:
        may_start = True
        for child in self._children.values():
            if child.state is State.STARTING and not child.killed:
                if now >= child.since + child.spec.ready_timeout_s:
                    child.killed = True
                    child.reason = f"not ready after {child.spec.ready_timeout_s:g} s"
                    yield Kill(child.spec.name)
            elif (child.state is State.WAITING and now >= child.since + child.pause_s) or (
                child.state is State.NEW and (may_start or child.spec.waits)
            ):
                child.become(State.STARTING, now)
                child.killed, child.refused, child.reason = False, False, ""
                yield Spawn(child.spec.name)
            may_start = may_start and (child.was_ready or not child.spec.required)
        if may_start and not self._announced:
            self._announced = True
            yield Announce({name: child.detail for name, child in self._children.items()})

    def _begin_stop(self, now: float, reason: str = "") -> None:
        if self._stop_at is not None:
            return
        self._stop_at = now
        if reason:
            self._finish = Finish(1, reason)
        for child in self._children.values():
            if not child.alive:
                child.become(State.GONE, now)

    def _stop(self, now: float) -> Iterator[Action]:
        assert self._stop_at is not None
        for child in reversed(self._children.values()):
            if child.state in (State.STARTING, State.READY):
                child.become(State.STOPPING, now)
                yield Terminate(child.spec.name)
            if child.alive and now < child.since + self._turn_s:
                break  # those before it may still be needed to end well
        if now >= self._stop_at + self._grace_s:
            yield from self._kill_all(f"did not stop within {self._grace_s:g} s", now)
        if not self._finished and not any(child.alive for child in self._children.values()):
            self._finished = True
            yield self._finish

    def _kill_all(self, why: str, now: float) -> Iterator[Action]:
        for child in reversed(self._children.values()):
            if not child.alive or (child.killed and child.state is State.STOPPING):
                continue
            if child.state is not State.STOPPING:
                child.become(State.STOPPING, now)
            child.killed = True
            if not self._finish.code:
                self._finish = Finish(1, f"{child.spec.name} {why}")
            yield Kill(child.spec.name)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
