"""A stream in memory that can fail as a network does: for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shared_storage.errors import HistoryGone, OutcomeUnknown, StreamDown, WrongSequence


class MemoryStream:
    """The Stream port on a list. `fault` is asked before each append what goes wrong with it.

    It answers "" (nothing), "down" (not sent), "lost" (not stored, no answer), "stored" (stored,
    no answer) or "late" (stored when something else is read or appended next, if it still fits).
    """

    def __init__(self, fault: Callable[[], str] = lambda: "") -> None:
        self._messages: list[bytes] = []
        self._dropped = 0
        self._late: tuple[bytes, int] | None = None
        self._fault = fault
        self._lock = threading.Lock()

    def append(self, message: bytes, *, expected: int) -> int:
        """Store a message; see `shared_storage.ports.Stream`."""
        with self._lock:
            fault = self._fault()
            if fault == "down":
                raise StreamDown("no majority")
            if fault == "lost":
                raise OutcomeUnknown("no answer")
            if fault == "late":
                self._late = (message, expected)
                raise OutcomeUnknown("no answer")
            self._arrive()
            sequence = self._store(message, expected)
            if fault == "stored":
                raise OutcomeUnknown("no answer")
            return sequence

    def read(self, after: int) -> list[tuple[int, bytes]]:
        """Messages behind a sequence; see `shared_storage.ports.Stream`."""
        with self._lock:
            if after < self._dropped:
                raise HistoryGone(f"message {after + 1} was dropped")
            return [*enumerate(self._messages, 1)][after : after + 3]

    def tail(self) -> int:
        """Newest sequence."""
        with self._lock:
            return len(self._messages)

    def drop(self, through: int) -> None:
        """Forget the oldest messages, as a stream does at its bound."""
        self._dropped = through

    def _arrive(self) -> None:
        if self._late:
            message, expected = self._late
            self._late = None
            if expected == len(self._messages):
                self._store(message, expected)

    def _store(self, message: bytes, expected: int) -> int:
        if expected != len(self._messages):
            raise WrongSequence(f"the newest is {len(self._messages)}, not {expected}")
        self._messages.append(message)
        return len(self._messages)
