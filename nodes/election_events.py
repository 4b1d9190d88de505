"""What an election is told, and what it asks for; its rules in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.handoff import HandOffRules
from nodes.heartbeat import Heartbeat
from nodes.lease import Lease


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds of the election; safety does not depend on them."""

    step_s: float = 0.3  # between two candidates
    settle_s: float = 5.0  # for the peers to be heard after a start
    lease_s: float = 10.0  # without a renewal, until the holder steps down
    drain_s: float = 1.0  # for the writes under way, before the lease is set free
    hand_off: HandOffRules = field(default_factory=HandOffRules)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; `own` is how this node is."""

    own: Heartbeat


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """The store says so."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Written:
    """The store took the write under way, as this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The store did not take the write under way: it had a newer revision."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Whether the store took the write under way is unknown."""


@dataclass(frozen=True, slots=True)
class TookOver:
    """The stream is applied to its end and holds this term's marker."""

    term: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The reign of `term` cannot go on: a newer one has written, or taking over failed."""

    term: int


@dataclass(frozen=True, slots=True)
class LeadAsked:
    """Someone asked that `node` leads."""

    node: str


@dataclass(frozen=True, slots=True)
class Drained:
    """No write of this node is under way any more."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """This node is to end."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put `lease` where the store's revision is `expected`; answer with an event."""

    lease: Lease
    expected: int


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Apply the stream to its end, then append the marker of this term."""

    term: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Hold back new writes, and wait for those under way."""


Event = (
    Tick | LeaseSeen | Written | Refused | Unanswered | TookOver | Lost | LeadAsked | Drained
    | StopAsked
)  # fmt: skip
Action = Write | TakeOver | Drain
