"""Producers that send until acknowledged, through lost answers, repeats and dead nodes."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.checker import Ack
from tests.node_process import LOOPBACK, NodeProcess

RETRYABLE = frozenset({429, 502, 503, 504, 507})
PAUSE_S = 0.02
TIMEOUT_S = 30.0
PATH = "/api/context/ingest"


class Refused(Exception):
    """The node answered with a status that no repeat will change."""


@dataclass(frozen=True, slots=True)
class Mischief:
    """How often (0..1) a producer drops the answer unread, or repeats what was acknowledged."""

    lost_answers: float = 0.0
    repeats: float = 0.0


class Producers:
    """Threads that send NDJSON bodies, each under its idempotency key, until acknowledged.

    Given several places (ports of this machine, or nodes) a producer goes on to the next one when
    one does not take what it sends, or does not answer for `timeout_s`. After each batch a
    producer rests for `pace_s`.

    After a broken connection a producer goes back one batch, as one that has crashed itself and
    starts again from its last note does: what was acknowledged before the crash is sent again.

    `acks` has every answer that a producer has read, in no particular order; `told` counts all
    outcomes: status codes, "lost" answers, and "broken" connections. `acked_at` are the moments of
    the acknowledgements, by the monotonic clock.
    """

    def __init__(
        self,
        to: int | Sequence[int | NodeProcess],
        bodies: Mapping[str, bytes],
        *,
        threads: int,
        seed: int,
        mischief: Mischief | None = None,
        timeout_s: float = TIMEOUT_S,
        pace_s: float = 0.0,
    ) -> None:
        self.acks: list[Ack] = []
        self.acked_at: list[float] = []
        self.told: Counter[str] = Counter()
        places = (to,) if isinstance(to, int) else to
        self._places = [
            (LOOPBACK, place) if isinstance(place, int) else (place.host, place.port)
            for place in places
        ]
        self._timeout_s, self._pace_s = timeout_s, pace_s
        self._mischief = mischief or Mischief()
        self._todo = deque(bodies.items())
        self._acknowledged: set[str] = set()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed}/{n}"),))
            for n in range(threads)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    @property
    def acknowledged(self) -> int:
        """Batches that are acknowledged by now."""
        return len(self._acknowledged)

    def wait(self, batches: int, seconds: float = 60.0) -> None:
        """Wait until so many batches are acknowledged; raises what a producer ran into."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: self.acknowledged >= batches or self._error is not None, seconds
            )
        if self._error:
            raise self._error
        assert done, f"{self.acknowledged} of {batches} batches within {seconds} s: {self.told}"

    def stop(self) -> None:
        """Send no more, and wait for the threads; unacknowledged batches have unknown outcomes."""
        self._stopping = True
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        connection = _Connection(self._places, chance.randrange(len(self._places)), self._timeout_s)
        last: tuple[str, bytes] | None = None
        try:
            with contextlib.closing(connection):
                while self._todo and not self._stopping:
                    with contextlib.suppress(IndexError):
                        key, body = self._todo.popleft()
                        broke = self._send(connection, key, body, chance)
                        if broke and last:
                            self._send(connection, *last, chance)
                        last = key, body
                        time.sleep(self._pace_s)
        except Exception as exc:  # told by `wait`
            with self._changed:
                self._error = exc
                self._changed.notify_all()

    def _send(self, connection: _Connection, key: str, body: bytes, chance: random.Random) -> bool:
        """Try until acknowledged, perhaps again then; returns whether the connection broke."""
        broken = self.told["broken"]
        while not self._stopping:
            ack = self._once(connection, key, body, chance)
            if ack is None:
                connection.move_on()
                time.sleep(PAUSE_S)
                continue
            with self._changed:
                self.acks.append(ack)
                self.acked_at.append(time.monotonic())
                self._acknowledged.add(key)
                self._changed.notify_all()
            if chance.random() >= self._mischief.repeats:
                break
        return self.told["broken"] > broken

    def _once(
        self, connection: _Connection, key: str, body: bytes, chance: random.Random
    ) -> Ack | None:
        """One try; None where its outcome is unknown, or nothing was stored for now."""
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
        try:
            connection.request("POST", PATH, body, headers)
            if chance.random() < self._mischief.lost_answers:
                connection.close()
                self.told["lost"] += 1
                return None
            answer = connection.getresponse()
            document = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            self.told["broken"] += 1
            return None
        self.told[str(answer.status)] += 1
        if answer.status in RETRYABLE or document.get("retryable"):
            return None
        if answer.status not in (200, 201):
            raise Refused(f"{key}: {answer.status} {document}")
        return ack_of(key, document)


class _Connection(http.client.HTTPConnection):
    """To one of several places at a time."""

    def __init__(self, places: Sequence[tuple[str, int]], first: int, timeout_s: float) -> None:
        super().__init__(*places[first], timeout=timeout_s)
        self._places, self._at = places, first

    def move_on(self) -> None:
        """The next request goes to the next place."""
        if len(self._places) > 1:
            self.close()
            self._at = (self._at + 1) % len(self._places)
            self.host, self.port = self._places[self._at]


def ack_of(key: str, document: Mapping[str, Any]) -> Ack:
    """An acknowledgement as the checker takes it."""
    place = document["cursor"], document["first_offset"], document["last_offset"]
    return Ack(key, *place, document["term"])
