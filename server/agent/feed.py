"""What comes into the log, on its way to one web process, for ever.

Each frame begins right behind the one before, whatever they hold: batches for a process that has
subscribers, else only how far the log goes. So nothing is missing or comes twice when it changes
its mind; what it was only told of, it reads from the log.
"""

from __future__ import annotations

import asyncio

from server import ipc
from server.agent.frames import read_request
from server.agent.node import Node
from server.ipc import FeedBatch, Request

LOG_BYTES = 4 << 20  # of the log at a time, for a web process that catches up


class Feed:
    """One web process's connection, once it has asked to follow."""

    def __init__(
        self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._node, self._reader, self._writer = node, reader, writer
        self._whole = True

    async def run(self, asked: Request) -> None:
        """Send what follows `after`, until the web process goes: then raises what that raises."""
        self._whole = bool(asked.params["whole"])
        after = int(asked.params["after"])
        tasks = {asyncio.ensure_future(work) for work in (self._send(after), self._listen())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Hear what the web process wants from the next frame on."""
        while True:
            self._whole = bool((await read_request(self._reader)).params["whole"])

    async def _send(self, after: int) -> None:
        """From the log first, then as they come.

        A web process that does not keep up is held by the socket's buffer and reads the rest from
        the log: nothing queues up here.
        """
        node, writer = self._node, self._writer
        while True:
            for frame in await self._following(after):
                writer.write(ipc.pack(frame))
                after = frame.first_offset + frame.count - 1
                await writer.drain()
            await node.changed.wait_for(lambda: node.ring.newest > after)  # noqa: B023

    async def _following(self, after: int) -> list[FeedBatch]:
        node = self._node
        if not self._whole:
            count = node.ring.newest - after
            return [FeedBatch(after + 1, count)] if count > 0 else []
        entries = node.ring.after(after)
        if entries is None:
            batches = await asyncio.to_thread(node.read_batches, after, max_bytes=LOG_BYTES)
        else:
            batches = [entry.batch for entry in entries]
        return [FeedBatch(b.first_offset, b.count, b.ingested_at, b.term, b.text) for b in batches]
