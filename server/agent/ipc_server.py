"""Serve the web processes over the Unix socket: one exchange at a time on each connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path

import msgspec

from context.errors import ContextError
from server import ipc, problems
from server.agent.feed import Feed
from server.agent.frames import read_request
from server.agent.intake import Intake
from server.agent.node import Node
from server.ipc import Answer, Led, Request
from server.logs import serving

log = logging.getLogger(__name__)
Call = Callable[[Node, Request], Awaitable[Answer]]

ALWAYS = frozenset({"ready", "metrics", "as_of"})  # calls that a starting node answers too


class IpcServer:
    """Answers `Request` frames with the calls given by name."""

    def __init__(self, node: Node, calls: Mapping[str, Call]) -> None:
        self._node, self._calls = node, calls
        self._timed = cache(node.metrics.calls.labels)

    async def start(self, path: Path) -> asyncio.Server:
        """Listen on the socket at `path`; an old socket file is replaced."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, path=str(path), limit=1 << 20)
        path.chmod(0o600)
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        intake = None
        try:
            while True:
                request = await read_request(reader)
                if request.method == "feed":
                    await Feed(self._node, reader, writer).run(request)
                if request.method == "leadership":
                    await self._leadership(writer)
                if request.method == "intake":
                    intake = Intake(self._node, self._finish, writer)
                    return
                writer.write(ipc.pack(await self._answer(request)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the web process went away, or the node stops
        except (msgspec.DecodeError, ipc.FrameTooLarge) as exc:
            log.error("a web process sent a bad frame", extra={"reason": str(exc)})
        except ContextError as exc:  # amid a feed; the web process asks again
            log.error("a feed was cut", extra={"reason": exc.detail})
        finally:
            if intake is None:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    async def _answer(self, request: Request) -> Answer:
        started = time.perf_counter()
        with serving(request.params.get("request_id") or ""):
            try:
                answer = await self._called(request)
            except Exception as exc:  # whatever a call raises becomes a problem; the node goes on
                answer = problems.answer(problems.describe(exc))
        return self._finish(request.method, answer, started)

    def _finish(self, method: str, answer: Answer, started: float) -> Answer:
        # On problems too: who asks several nodes wants to know which one is behind.
        answer.headers["Context-Node"] = self._node.settings.node_id
        answer.headers["Context-Applied"] = self._node.cursor(self._node.snapshot().newest)
        if behind := self._node.behind:
            answer.headers["Context-Stale"] = str(behind)
        took = time.perf_counter() - started
        self._timed(method, answer.status).observe(took)
        return answer

    async def _called(self, request: Request) -> Answer:
        if request.method not in ALWAYS:
            self._node.check_ready()
        return await self._calls[request.method](self._node, request)

    async def _leadership(self, writer: asyncio.StreamWriter) -> None:
        """Tell who leads, at once and at every change, for ever."""
        leadership, told = self._node.leadership, None

        def now() -> Led:
            leader, leading = leadership.leader, leadership.leading
            named = (leader.id, leader.url) if leader else ("", "")
            protocol = leadership.protocol_of(named[0])
            return Led(*named, leadership.term, leading, protocol)

        while True:
            async with leadership.changed:
                await leadership.changed.wait_for(lambda: now() != told)  # noqa: B023
                told = now()
            writer.write(ipc.pack(told))
            await writer.drain()
