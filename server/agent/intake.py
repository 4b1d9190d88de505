"""Takes in small bodies: many at a time on one connection, without a task or a thread for each.

What a single item costs is mostly what is done around it. Here bodies that come together are
checked and stored as one, as long as all is well with them, and what one commit made durable is
answered in one write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import msgspec

from context.ports import Outcome, Receipt
from server import ipc, problems
from server.agent.context_calls import accepted, draft, joint_draft
from server.agent.node import Node
from server.ipc import Answer, Posted, Told
from server.logs import serving

log = logging.getLogger(__name__)
Finish = Callable[[str, Answer, float], Answer]  # method, answer, when it began

ROOM_BYTES = 1 << 20  # more where one frame needs it
LEAST_BYTES = 128 << 10  # to read at once

_decode = msgspec.msgpack.Decoder(Posted).decode


class Intake(asyncio.BufferedProtocol):
    """One web process's connection, once it is used for this alone.

    What comes lies in one room, used again and again, until its frame is whole: `_begin` to `_end`.
    """

    def __init__(self, node: Node, finish: Finish, writer: asyncio.StreamWriter) -> None:
        """Take over the connection of `writer`; `finish` is done with every answer."""
        self._node, self._finish, self._writer = node, finish, writer
        self._room = memoryview(bytearray(ROOM_BYTES))
        self._begin = self._end = 0
        self._answers: list[bytearray] = []
        writer.transport.set_protocol(self)
        writer.write(ipc.pack(Answer(200, {}, b"")))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what comes next."""
        if len(self._room) - self._end < LEAST_BYTES:
            kept = bytes(self._room[self._begin : self._end])
            if len(kept) > len(self._room) // 2:
                self._room = memoryview(bytearray(2 * len(self._room)))
            self._room[: len(kept)] = kept
            self._begin, self._end = 0, len(kept)
        return self._room[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what has come whole."""
        self._end += nbytes
        room, whole = self._room, list[Posted]()
        try:
            while self._end - self._begin >= ipc.HEADER_BYTES:
                first = self._begin + ipc.HEADER_BYTES
                end = first + ipc.length(room[self._begin : first])
                if end > self._end:
                    break
                whole.append(_decode(room[first:end]))
                self._begin = end
        except (msgspec.DecodeError, ipc.FrameTooLarge) as exc:
            log.error("a web process sent a bad frame", extra={"reason": str(exc)})
            self._writer.close()
        if self._begin == self._end:
            self._begin = self._end = 0
        for group in _groups(whole):
            if len(group) == 1 or not self._take_together(group):
                for each in group:
                    self._take(each)

    def _take_together(self, group: Sequence[Posted]) -> bool:
        """Take in bodies as one; False where each is to be judged by itself."""
        started = time.perf_counter()
        found = None if self._node.not_ready else joint_draft(self._node, [p.body for p in group])
        if found is None:
            return False
        draft, counts = found
        parts = [(posted.number, count) for posted, count in zip(group, counts, strict=True)]
        done = partial(self._done_together, parts, started)
        try:
            self._node.submit(draft, done)
        except Exception as exc:  # there is no room for it
            done(exc)
        return True

    def _done_together(
        self, parts: Sequence[tuple[int, int]], started: float, outcome: Outcome
    ) -> None:
        """Tell each of those whose items were stored one behind the other."""
        shift = 0
        for number, count in parts:
            own = outcome
            if isinstance(outcome, Receipt):
                own = Receipt(outcome.first_offset + shift, count, outcome.term)
            self._done(number, started, own)
            shift += count

    def _take(self, posted: Posted) -> None:
        done = partial(self._done, posted.number, time.perf_counter())
        with serving(posted.params.get("request_id") or ""):
            try:
                self._node.check_ready()
                self._node.submit(draft(self._node, posted.params, posted.body), done)
            except Exception as exc:  # whatever is wrong becomes a problem; the node goes on
                done(exc)

    def _done(self, number: int, started: float, outcome: Outcome) -> None:
        if isinstance(outcome, Receipt):
            answer = accepted(self._node, outcome)
        else:
            answer = problems.answer(problems.describe(outcome))
        answer = self._finish("ingest", answer, started)
        if not self._answers:
            self._node.loop.call_soon(self._send)
        told = Told(number, answer.status, answer.headers, answer.body)
        self._answers.append(ipc.pack(told))

    def _send(self) -> None:
        answers, self._answers = self._answers, []
        self._writer.write(b"".join(answers))  # nothing happens where the process went away


def _groups(bodies: Iterable[Posted]) -> Iterator[list[Posted]]:
    """Neighbours that may be taken in as one; whoever may not is alone."""
    group, size = list[Posted](), 0
    for each in bodies:
        plain = _is_plain(each)
        if group and (not plain or size + len(each.body) > ipc.SMALL_BYTES):
            yield group
            group, size = [], 0
        if plain:
            group.append(each)
            size += len(each.body)
        else:
            yield [each]
    if group:
        yield group


def _is_plain(posted: Posted) -> bool:
    """Whether its items are all that there is to this body, one a line."""
    told, body = posted.params, posted.body
    if told.get("idempotency_key") is not None or "content_encoding" in told:
        return False
    media = told.get("content_type")
    if media == "application/json":
        return body.startswith(b"{") and b"\n" not in body
    return media == "application/x-ndjson"
