"""Requests being answered, so that a process that is to stop can finish what it has begun."""

from __future__ import annotations


class Stopping(Exception):
    """This process answers what it has begun and takes nothing new."""

    code = "stopping"
    status = 503
    retryable = True


class InFlight:
    """Counts requests; streams count only until they begin."""

    def __init__(self) -> None:
        self.count = 0
        self.draining = False

    def drain(self) -> bool:
        """Refuse what comes from now on; True while something is still being answered."""
        self.draining = True
        return self.count > 0

    def enter(self) -> None:
        """A request came."""
        self.count += 1

    def leave(self) -> None:
        """It is answered."""
        self.count -= 1
