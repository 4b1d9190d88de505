"""Serve the web processes over the Unix socket: one exchange at a time on each connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from context.errors import ContextError
from server import ipc, problems
from server.agent.node import Node, NotReady
from server.ipc import Answer, FeedBatch, Led, Request
from server.logs import serving

log = logging.getLogger(__name__)
Call = Callable[[Node, Request], Awaitable[Answer]]

ALWAYS = frozenset({"ready", "metrics", "as_of"})  # calls that a starting node answers too
FEED_BYTES = 4 << 20  # of the log at a time, for a web process that catches up

_decode = msgspec.msgpack.Decoder(Request).decode


class IpcServer:
    """Answers `Request` frames with the calls given by name."""

    def __init__(self, node: Node, calls: Mapping[str, Call]) -> None:
        self._node, self._calls = node, calls

    async def start(self, path: Path) -> asyncio.Server:
        """Listen on the socket at `path`; an old socket file is replaced."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, path=str(path), limit=1 << 20)
        path.chmod(0o600)
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = ipc.length(await reader.readexactly(ipc.HEADER_BYTES))
                request = _decode(await reader.readexactly(size))
                if request.method == "feed":
                    await self._feed(int(request.params["after"]), writer)
                if request.method == "leadership":
                    await self._leadership(writer)
                writer.write(ipc.pack(await self._answer(request)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the web process went away, or the node stops
        except (msgspec.DecodeError, ipc.FrameTooLarge) as exc:
            log.error("a web process sent a bad frame", extra={"reason": str(exc)})
        except ContextError as exc:  # amid a feed; the web process asks again
            log.error("a feed was cut", extra={"reason": exc.detail})
        finally:
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
        # On problems too: who asks several nodes wants to know which one is behind.
        answer.headers["Context-Node"] = self._node.settings.node_id
        answer.headers["Context-Applied"] = self._node.cursor(self._node.snapshot().newest)
        if behind := self._node.behind:
            answer.headers["Context-Stale"] = str(behind)
        took = time.perf_counter() - started
        self._node.metrics.calls.labels(request.method, answer.status).observe(took)
        return answer

    async def _called(self, request: Request) -> Answer:
        node = self._node
        if node.not_ready and request.method not in ALWAYS:
            raise NotReady(f"this node is not ready: {node.not_ready}")
        return await self._calls[request.method](node, request)

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

    async def _feed(self, after: int, writer: asyncio.StreamWriter) -> None:
        """Send every batch after an offset, for ever: from the log first, then as they come.

        The first frame tells where the feed begins. A web process that does not keep up is held
        by the socket's buffer and reads the rest from the log: nothing queues up here.
        """
        node = self._node
        while True:
            entries = node.ring.after(after)
            if entries is None:
                batches = await asyncio.to_thread(node.read_batches, after, max_bytes=FEED_BYTES)
            else:
                batches = [entry.batch for entry in entries]
            for b in batches:
                frame = FeedBatch(b.first_offset, b.count, b.ingested_at, b.term, b.text)
                writer.write(ipc.pack(frame))
                after = b.last_offset
                await writer.drain()
            if not batches:
                await node.changed.wait_for(lambda: node.ring.newest > after)  # noqa: B023
