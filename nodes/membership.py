"""Who is alive: from the age of the last heartbeat of each node.

    ALIVE ──> SUSPECT ──> DEAD      by age: `suspect_s`, `dead_s`
      ^──────────┴─────────┘        by any newer heartbeat

Ages count only time in which this node itself was awake: each `tick` adds at most `heartbeat_s`.
A node that was paused, or whose clock jumped, therefore does not take the others for dead.

A dead node whose place another took is forgotten.

A node that the engine knows no connection of (`unanswered`, asked twice in a row) is dead at once:
a process that was killed closes its connection, however young its last heartbeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nodes.heartbeat import Heartbeat
from nodes.protocol import near

UNANSWERED = 2  # in a row, until a node counts as dead
LIVES_REMEMBERED = 8


class State(StrEnum):
    """How sure it is that a node works."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of the failure detector."""

    heartbeat_s: float = 0.5
    suspect_s: float = 1.5
    dead_s: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_s < self.suspect_s < self.dead_s:
            raise ValueError(
                "heartbeat_s, suspect_s and dead_s must grow (got "
                f"{self.heartbeat_s}, {self.suspect_s}, {self.dead_s})"
            )


@dataclass(slots=True)
class _Heard:
    beat: Heartbeat
    at: float
    unanswered: int = 0


class Membership:
    """The other nodes, as heard; see the module's rules."""

    def __init__(self, timings: Timings) -> None:
        self.timings = timings
        self.awake_s = 0.0  # since the start, without pauses
        self._ticked_at: float | None = None
        self._heard: dict[str, _Heard] = {}
        self._past: dict[str, list[str]] = {}  # earlier lives of each node, the newest last
        self.newest_offset = -1  # that any of them told to have applied

    def tick(self, now: float) -> None:
        """Let time pass until the monotonic second `now`; call it every heartbeat or oftener."""
        if self._ticked_at is not None:
            self.awake_s += min(max(0.0, now - self._ticked_at), self.timings.heartbeat_s)
        self._ticked_at = now

    def heard(self, beat: Heartbeat) -> None:
        """Take in a heartbeat; late and repeated ones change nothing."""
        past, known = self._past.setdefault(beat.id, []), self._heard.get(beat.id)
        if beat.life in past:
            return
        if known is not None and known.beat.life != beat.life:
            past.append(known.beat.life)
            del past[:-LIVES_REMEMBERED]
        elif known is not None and beat.number <= known.beat.number:
            return
        self._heard[beat.id] = _Heard(beat, self.awake_s)
        if beat.replaces != beat.id and self.state(beat.replaces) is State.DEAD:
            gone = self._heard.pop(beat.replaces)
            self._past[beat.replaces].append(gone.beat.life)
        self.newest_offset = max(self.newest_offset, beat.applied_offset)

    def unanswered(self, node: str) -> None:
        """The engine knows no connection of this node."""
        if node in self._heard:
            self._heard[node].unanswered += 1

    def age_s(self, node: str) -> float:
        """Seconds since the last heartbeat; infinite where there was none."""
        heard = self._heard.get(node)
        return float("inf") if heard is None else self.awake_s - heard.at

    def state(self, node: str) -> State | None:
        """How the node is; None where it was never heard."""
        heard, age_s = self._heard.get(node), self.age_s(node)
        if heard is None:
            return None
        if age_s >= self.timings.dead_s or heard.unanswered >= UNANSWERED:
            return State.DEAD
        return State.SUSPECT if age_s >= self.timings.suspect_s else State.ALIVE

    def beat(self, node: str) -> Heartbeat | None:
        """The last heartbeat of a node."""
        heard = self._heard.get(node)
        return heard.beat if heard else None

    def beats(self) -> list[Heartbeat]:
        """The last heartbeat of every node ever heard, by name."""
        return [heard.beat for _, heard in sorted(self._heard.items())]

    def foreign(self, protocol: int) -> list[Heartbeat]:
        """Nodes that do not understand that version, nor it them."""
        return [beat for beat in self.alive() if not near(beat.protocol, protocol)]

    def is_apart(self, protocol: int) -> bool:
        """Whether a node of that version may not lead the others: most do not understand it.

        Of two halves the older one goes on.
        """
        foreign = self.foreign(protocol)
        close = len(self.alive()) - len(foreign) + 1  # with itself
        if len(foreign) != close:
            return len(foreign) > close
        return protocol > min(beat.protocol for beat in foreign)

    def oldest_protocol(self, protocol: int) -> int:
        """The version that all understand who are not two away from this one."""
        heard = [beat.protocol for beat in self.beats() if self.state(beat.id) is not State.DEAD]
        return min([protocol, *(each for each in heard if near(each, protocol))])

    def alive(self) -> list[Heartbeat]:
        """The last heartbeats of the nodes that are alive."""
        return [beat for beat in self.beats() if self.state(beat.id) is State.ALIVE]
