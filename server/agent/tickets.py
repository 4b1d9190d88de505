"""Tickets: each lets one request in once, within seconds, for callers that cannot send headers."""

from __future__ import annotations

from context.errors import RateLimited

TICKET_S = 30
MAX_TICKETS = 10_000


class Tickets:
    """The tickets that are out; kept by the agent, as any web process may see them come back."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # in the order of their ends

    def issue(self, ticket: str, now: float) -> None:
        """Remember a fresh ticket; `now` is monotonic seconds. Raises RateLimited."""
        while self._until and next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]
        if len(self._until) >= MAX_TICKETS:
            raise RateLimited(f"{MAX_TICKETS} tickets are out; retry in a second")
        self._until[ticket] = now + TICKET_S

    def redeem(self, ticket: str, now: float) -> bool:
        """Whether the ticket was good; it is not any more."""
        return self._until.pop(ticket, now) > now
