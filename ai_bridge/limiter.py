"""How many questions a model gets at a time, and who is next: first come, first served, but fair.

Waiting tickets queue up per caller; free places go to the callers in turn. Whoever sends a hundred
questions so waits behind himself, not others behind him.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Ticket:
    """One question's place. `admitted` turns true once; then it must `leave` once."""

    caller: str
    admitted: bool = False


class Limiter:
    """At most `limit` admitted and `max_waiting` waiting tickets. Pure: it never waits itself."""

    def __init__(self, limit: int, max_waiting: int = 64) -> None:
        self.limit, self.max_waiting = limit, max_waiting
        self.active = 0
        self.waiting = 0
        self._queues: OrderedDict[str, deque[Ticket]] = OrderedDict()  # whose turn it is, first

    def enter(self, caller: str) -> Ticket | None:
        """A ticket, admitted where a place is free; None where too many wait already."""
        ticket = Ticket(caller)
        if self.active < self.limit and not self.waiting:
            ticket.admitted = True
            self.active += 1
            return ticket
        if self.waiting >= self.max_waiting:
            return None
        self._queues.setdefault(caller, deque()).append(ticket)
        self.waiting += 1
        return ticket

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give a place back, or give up waiting; returns who is admitted by it."""
        if ticket.admitted:
            self.active -= 1
            return self.admit()
        queue = self._queues[ticket.caller]
        queue.remove(ticket)
        self.waiting -= 1
        if not queue:
            del self._queues[ticket.caller]
        return []

    def admit(self) -> list[Ticket]:
        """Fill free places (after `limit` grew too); returns who is admitted, in order."""
        admitted = []
        while self.waiting and self.active < self.limit:
            caller, queue = next(iter(self._queues.items()))
            ticket = queue.popleft()
            if queue:
                self._queues.move_to_end(caller)
            else:
                del self._queues[caller]
            ticket.admitted = True
            self.waiting -= 1
            self.active += 1
            admitted.append(ticket)
        return admitted
