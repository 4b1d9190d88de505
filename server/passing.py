"""Has a call answered by whoever leads: here, or by passing it on to that node.

While the lead changes hands a call is held back for up to `HOLD_S` instead of being refused, for
`TAKEOVER_S` once the next leader is known, which first applies what earlier ones wrote. What may
have been done elsewhere is sent again only where that cannot do it twice: a reading, or a write
with an `Idempotency-Key`; for all else the caller is told that the outcome is unknown. A call that
was passed on once is never passed on again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
from prometheus_client import CollectorRegistry, Counter

from context.errors import NoLeader, NotLeader, OutcomeUnknown, RateLimited
from nodes.proof import HEADER, Passed, Proofs
from nodes.protocol import PROTOCOL
from server.bridging import VERSION, recast
from server.ipc import Answer, Led
from server.lead import Lead
from server.upstream import NotSent, Sending, Unanswered, Upstream

HOLD_S = 1.0
TAKEOVER_S = 10.0  # the engines elect a leader of the stream in up to 9 s
PAUSE_S = 0.05  # until the same node is asked once more
ANSWER_S = 75.0  # above the longest deadline that a call may ask for
GRACE_S = 3.0  # for the answer of a node that does not lead any more
IDEMPOTENT = "Idempotency-Key"
KEPT = (
    "Accept",
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    IDEMPOTENT,
    "X-Request-Id",
)
_KEYED = "/api/context/ingest"  # the call that knows its keys
_STOP = "/api/control/emergency-stop"
_ENVIRON = {
    name: "CONTENT_TYPE" if name == "Content-Type" else f"HTTP_{name.upper().replace('-', '_')}"
    for name in KEPT
}
_MOVED = frozenset({"fenced_out", "not_leader", "no_leader", "stopping"})  # nothing was done
_STOPPING = b'"code":"stopping"'


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way to the leader; `path` is decoded, each byte one character."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # those of `KEPT` that are there
    body: bytes
    caller: str  # address
    reads: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is like doing it once."""
        keyed = self.path == _KEYED and IDEMPOTENT in self.headers
        return self.reads or keyed or self.path == _STOP


class Passing:
    """What one web process does with calls that the leader has to answer."""

    def __init__(
        self,
        lead: Lead,
        node_id: str,
        proofs: Proofs | None,
        registry: CollectorRegistry,
        most_bytes: int,
    ) -> None:
        """A single node has no `proofs`. At most `most_bytes` of bodies wait at the same time."""
        self._lead, self._node_id, self._proofs = lead, node_id, proofs
        self._upstream = Upstream()
        lead.on_change(lambda _: self._upstream.close())  # the next leader is another node
        self._passed = Counter(
            "context_passed_on", "Calls passed on to the leader", ["outcome"], registry=registry
        )
        self._bytes, self._most_bytes, self._lock = 0, most_bytes, threading.Lock()

    @property
    def clustered(self) -> bool:
        """Whether another node may lead."""
        return self._proofs is not None

    @property
    def led(self) -> Led:
        """Who leads now."""
        return self._lead.now

    def reach(self, call: Call, here: Callable[[], Answer], *, passed_on: bool = False) -> Answer:
        """The leader's answer; `here` makes it where this node leads.

        Raises NoLeader, NotLeader, OutcomeUnknown, RateLimited.
        """
        if self._proofs is None:
            return here()
        if self._lead.now.here:
            answer = here()
            if passed_on or not _moved(answer):
                return answer
        with self._room(len(call.body)):
            return self._reach(call, here, self._proofs, passed_on)

    def _reach(
        self, call: Call, here: Callable[[], Answer], proofs: Proofs, passed_on: bool
    ) -> Answer:
        since, in_doubt = 0.0, False  # how long it has been trying
        while True:
            led, why, answer = self._lead.now, "no node leads now", None
            elsewhere = led.id not in ("", self._node_id)
            if passed_on and elsewhere:
                raise NotLeader(f"node {self._node_id} does not lead; nothing was done")
            try:
                if led.here:
                    answer = here()
                elif elsewhere:
                    answer = self._pass_on(call, led, proofs)
                if answer is not None and (passed_on or not _moved(answer)):
                    return answer
            except NotSent as exc:
                why = f"the leader {led.id} cannot be reached: {exc}"
            except Unanswered as exc:
                why = f"the leader {led.id} did not answer: {exc}"
                in_doubt = True
            now = time.monotonic()
            since = since or now
            until = since + (TAKEOVER_S if led.id and not passed_on else HOLD_S)
            if now >= until or (in_doubt and not call.repeatable):
                raise self._failure(why, in_doubt=in_doubt, passed_on=passed_on)
            # A process that stops would take a request along with it.
            stopping = answer is not None and _STOPPING in answer.body
            pause = PAUSE_S if led.id and not stopping else HOLD_S
            self._lead.wait(lambda at: at != led, min(pause, until - now))  # noqa: B023

    def _failure(self, why: str, *, in_doubt: bool, passed_on: bool) -> Exception:
        if passed_on:
            return NotLeader(f"node {self._node_id} does not lead; nothing was done")
        if in_doubt:
            self._passed.labels("outcome_unknown").inc()
            return OutcomeUnknown(
                f"{why}; it may have been done. The same request with its {IDEMPOTENT} finds out"
            )
        self._passed.labels("no_leader").inc()
        return NoLeader(f"{why}; nothing was done, try again in a moment")

    def _pass_on(self, call: Call, led: Led, proofs: Proofs) -> Answer:
        said = min(PROTOCOL, led.protocol)
        kept, body = recast(call.path, call.headers, call.body, PROTOCOL, said, self._most_bytes)
        what = Passed(call.method, call.path, call.query, kept)
        proof = proofs.sign(what, body, sender=self._node_id, caller=call.caller, now=time.time())
        target = quote(call.path.encode("latin-1"), safe="/:@!$&'()*+,;=~-._")
        if call.query:
            target += f"?{call.query}"
        headers = {**kept, HEADER: proof, VERSION: str(said)}
        sending = Sending(call.method, target, headers, body)
        asked = time.monotonic()

        def gone() -> bool:
            now = time.monotonic()
            moved = self._lead.now.id != led.id and now - self._lead.since > GRACE_S
            return moved or now - asked > ANSWER_S

        answer = self._upstream.ask(led.url, sending, gone)
        self._passed.labels("answered").inc()
        return answer

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        with self._lock:
            if self._bytes and self._bytes + size > self._most_bytes:
                raise RateLimited("too many bodies are on their way to the leader; retry")
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._bytes -= size


def _moved(answer: Answer) -> bool:
    """Whether the answer only says that another node leads."""
    if answer.status not in (409, 503):
        return False
    try:
        return msgspec.json.decode(answer.body).get("code") in _MOVED
    except (msgspec.DecodeError, AttributeError):
        return False


def kept_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a request that go along to the leader."""
    return {name: environ[key] for name, key in _ENVIRON.items() if key in environ}
