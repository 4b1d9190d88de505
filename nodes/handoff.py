"""When a better machine takes over: clearly better, for a while, and not often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nodes.heartbeat import Heartbeat

FAR_BEHIND = 100_000  # items; about a second of applying


@dataclass(frozen=True, slots=True)
class HandOffRules:
    """How much better, for how long, and how often at most."""

    better_by: float = 0.2
    for_s: float = 60.0
    every_s: float = 600.0


class HandOff:
    """Watches the others' scores while this node leads."""

    def __init__(self, rules: HandOffRules) -> None:
        self._rules = rules
        self._better_since: dict[str, float] = {}
        self._last = float("-inf")

    def done(self, now: float) -> None:
        """A lead began or ended at awake second `now`; the next hand-off must wait."""
        self._last = now
        self._better_since.clear()

    def target(self, own: Heartbeat, others: Sequence[Heartbeat], now: float) -> str | None:
        """Who should lead instead, at awake second `now`; None for nobody.

        A leader whose disk is full does not wait for a better one: any with room will do.
        """
        wanted = own.score * (1 + self._rules.better_by)
        better = [
            beat
            for beat in others
            if beat.eligible
            and not beat.full
            and (own.full or beat.score > wanted)
            and own.applied_offset - beat.applied_offset <= FAR_BEHIND
        ]
        if own.full and better:
            return ranked(better)[0].id
        self._better_since = {beat.id: self._better_since.get(beat.id, now) for beat in better}
        if now - self._last < self._rules.every_s:
            return None
        lasting = [
            beat for beat in better if now - self._better_since[beat.id] >= self._rules.for_s
        ]
        return ranked(lasting)[0].id if lasting else None


def ranked(beats: Sequence[Heartbeat]) -> list[Heartbeat]:
    """Nodes that may lead, the best first; who is far behind or has a full disk comes last."""
    newest = max((beat.applied_offset for beat in beats), default=0)
    return sorted(
        (beat for beat in beats if beat.eligible),
        key=lambda beat: (
            beat.full,
            newest - beat.applied_offset > FAR_BEHIND,
            -beat.score,
            beat.id,
        ),
    )
