"""One node's part in the replicated stream: every message applied once, in order.

Invariants
- A message is applied after the stream acknowledged it, never before.
- Appending decides with everything applied: whoever wrote meanwhile makes it decide anew.
- Only who leads appends; the fence of its term comes first.
- A term lower than one that has written is refused here, and left out by every node should it be
  in the stream all the same.
- After an unknown outcome nothing is appended until the stream's tail has been read and applied.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from shared_storage.envelope import Envelope, Kind, decode, encode
from shared_storage.errors import (
    BadMessage,
    CopyFailed,
    HistoryGone,
    OutcomeUnknown,
    StaleTerm,
    StorageError,
    StreamDown,
    WrongSequence,
)
from shared_storage.ports import Stream

log = logging.getLogger(__name__)
MAX_TRIES = 5
_NOTE_EVERY = 256  # messages
_TAIL_S = 5.0
_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.05


class Applier(Protocol):
    """Where messages of one kind go on this node."""

    @property
    def applied(self) -> int:
        """Sequence up to which everything is in here, or concerns others; durable."""

    def apply(self, sequence: int, message: Envelope) -> None:
        """Take a message in. Raises BadMessage where it is none; then it is left out."""

    def note(self, sequence: int) -> None:
        """Everything up to here is in, or concerns others."""


class Replica:
    """Appends to the stream and applies it to this node's own copies."""

    def __init__(
        self, stream: Stream, appliers: Mapping[Kind, Applier], *, epoch: str, term: int
    ) -> None:
        """`term` is the newest that the copies have seen."""
        self.stream, self.epoch = stream, epoch
        self.term = term
        self.lock = threading.RLock()
        self._appliers = appliers
        self.applied = min(each.applied for each in appliers.values())
        self.leads: Callable[[int], bool] = lambda term: True
        self.send_s = 5.0  # for an answer, over all tries
        self._in_doubt = True  # until the tail was seen
        self._since_note = 0

    def append(self, kind: Kind, term: int, decide: Callable[[], bytes | None]) -> None:
        """Put the payload that `decide` makes into the stream and apply it; None writes nothing.

        `decide` is asked with everything applied that is in the stream, again each time another
        message came first. Raises StaleTerm, StreamDown, OutcomeUnknown, CopyFailed, and what
        `decide` raises.
        """
        with self.lock:
            for _ in range(MAX_TRIES):
                if self._in_doubt:
                    self._catch_up()
                if term < self.term:
                    raise StaleTerm(f"term {term} is older than {self.term}; find the leader again")
                if kind is not Kind.FENCE and not self.leads(term):
                    raise StaleTerm("this node does not lead; find the leader again")
                payload = decide()
                if payload is None or self._put(
                    Envelope(kind, term, self.applied, self.epoch, payload)
                ):
                    return
            raise StreamDown("others keep writing; nothing was stored")

    def fence(self, term: int) -> None:
        """Apply the stream to its tail and mark the beginning of a reign: nothing older follows.

        The lease gives each term to one node, so a mark of this term is this node's own, from a
        try whose answer got lost. Raises StaleTerm where a newer one has written, StreamDown,
        OutcomeUnknown.
        """
        with self.lock:
            self._in_doubt = True

            def mark() -> bytes | None:
                return None if term == self.term else b""

            self.append(Kind.FENCE, term, mark)

    def follow(self) -> int:
        """Apply what the stream has beyond this node's copies, some of it; how many messages.

        Raises HistoryGone, NewerMessage, StreamDown, and what applying raises.
        """
        return self.take(self.stream.read(self.applied))

    def take(self, messages: Sequence[tuple[int, bytes]]) -> int:
        """Apply messages that were read from the stream, not under the lock, as an engine may take
        seconds for them; how many they are. Raises as `follow`, but not StreamDown.
        """
        with self.lock:
            for sequence, message in messages:
                if sequence > self.applied:  # else an append has applied it meanwhile
                    self._apply(sequence, message)
            return len(messages)

    def note(self) -> None:
        """Let every copy remember how far it is, such as before the node stops."""
        with self.lock:
            self._since_note = 0
            for each in self._appliers.values():
                each.note(self.applied)

    def _put(self, message: Envelope) -> bool:
        """Whether the message is in the stream, and applied; False: another one is there."""
        data = encode(message)
        sequence = self._sent(data)
        try:
            if sequence is None:
                return self._to_tail(ours=data)
            self._apply(sequence, data)
        except StreamDown as exc:
            raise OutcomeUnknown(f"perhaps stored by the cluster: {exc.detail}") from exc
        except StorageError:
            raise
        except Exception as exc:
            self._in_doubt = True
            raise OutcomeUnknown(
                f"stored by the cluster, but this node could not take it in ({type(exc).__name__})"
            ) from exc
        return True

    def _sent(self, data: bytes) -> int | None:
        """Sequence of the message; None where there is one in its place, perhaps this very one.

        It is sent again where no answer comes: each try names the same place, so at most one of
        them is taken. Raises StreamDown, OutcomeUnknown.
        """
        deadline, pause_s, doubt = time.monotonic() + self.send_s, _PAUSE_S, None
        while True:
            try:
                return self.stream.append(data, expected=self.applied)
            except WrongSequence:
                return None
            except (OutcomeUnknown, StreamDown) as exc:
                doubt = exc if isinstance(exc, OutcomeUnknown) else doubt
                if doubt is None:
                    raise
                if time.monotonic() >= deadline:
                    self._in_doubt = True
                    raise doubt from exc
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _catch_up(self) -> None:
        try:
            self._to_tail()
        except sqlite3.Error as exc:
            raise CopyFailed(f"the copy of the stream could not be written ({exc})") from exc

    def _to_tail(self, ours: bytes | None = None) -> bool:
        """Apply everything that is in the stream now; whether `ours` was the first of it.

        An engine may send again after a broken connection what it had already sent: then the
        second one finds the first in its place.
        """
        self._in_doubt = True
        tail, found, first = self.stream.tail(), False, self.applied + 1
        deadline = time.monotonic() + _TAIL_S
        while self.applied < tail:
            messages = self.stream.read(self.applied)
            for sequence, message in messages:
                found = found or (sequence == first and message == ours)
                self._apply(sequence, message)
            if not messages:  # the engine asked is a moment behind the one that leads the stream
                if time.monotonic() > deadline:
                    raise StreamDown(f"no engine gives message {self.applied + 1} of {tail}")
                time.sleep(_PAUSE_S)
        self._in_doubt = False
        return found

    def _apply(self, sequence: int, data: bytes) -> None:
        if sequence != self.applied + 1:
            raise HistoryGone(f"the stream has {sequence} next, not {self.applied + 1}")
        try:
            message = decode(data)
            if message.epoch != self.epoch:
                raise BadMessage(f"of epoch {message.epoch}, not {self.epoch}")
            if message.previous != self.applied:
                raise BadMessage(f"written behind {message.previous}, not {self.applied}")
            if message.term < self.term:
                raise BadMessage(f"of term {message.term}, after {self.term}")
            if message.kind in self._appliers:
                applier = self._appliers[message.kind]
                if sequence > applier.applied:
                    applier.apply(sequence, message)
            self.term = message.term
        except BadMessage as exc:
            log.error("left out a message", extra={"sequence": sequence, "reason": exc.detail})
        self.applied = sequence
        self._since_note += 1
        if self._since_note >= _NOTE_EVERY:
            self.note()
