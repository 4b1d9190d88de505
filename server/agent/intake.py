"""Takes in small bodies: many at a time on one connection, without a task or a thread for each.

What a single item costs is mostly what is done around it. Here a body is checked as soon as its
last byte comes, and what one commit made durable is answered in one write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

import msgspec

from context.ports import Outcome, Receipt
from server import ipc, problems
from server.agent.context_calls import accepted, draft
from server.agent.node import Node
from server.ipc import Answer, Posted, Told
from server.logs import serving

log = logging.getLogger(__name__)
Finish = Callable[[str, Answer, float], Answer]  # method, answer, when it began

_decode = msgspec.msgpack.Decoder(Posted).decode


class Intake(asyncio.Protocol):
    """One web process's connection, once it is used for this alone."""

    def __init__(self, node: Node, finish: Finish, writer: asyncio.StreamWriter) -> None:
        """Take over the connection of `writer`; `finish` is done with every answer."""
        self._node, self._finish, self._writer = node, finish, writer
        self._begun = b""
        self._answers: list[bytes] = []
        writer.transport.set_protocol(self)
        writer.write(ipc.pack(Answer(200, {}, b"")))

    def data_received(self, data: bytes) -> None:
        """Take in what has come whole."""
        begun, at = self._begun + data if self._begun else data, 0
        view = memoryview(begun)
        try:
            while len(begun) - at >= ipc.HEADER_BYTES:
                first = at + ipc.HEADER_BYTES
                end = first + ipc.length(begun[at:first])
                if end > len(begun):
                    break
                self._take(_decode(view[first:end]))
                at = end
        except (msgspec.DecodeError, ipc.FrameTooLarge) as exc:
            log.error("a web process sent a bad frame", extra={"reason": str(exc)})
            self._writer.close()
        self._begun = begun[at:]

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
