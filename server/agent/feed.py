"""What comes into the log, on its way to one web process, for ever.

Each frame begins right behind the one before, whatever they hold: batches for a process that has
subscribers, else only how far the log goes. So nothing is missing or comes twice when it changes
its mind; what it was only told of, it reads from the log.
"""

from __future__ import annotations

import asyncio

from ai_bridge.chain import BEGINNING
from context.items import Batch
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
        self._whole, self._after = True, -1

    async def run(self, asked: Request) -> None:
        """Send what follows `after`, until the web process goes: then raises what that raises."""
        self._whole, self._after = bool(asked.params["whole"]), int(asked.params["after"])
        tasks = {asyncio.ensure_future(work) for work in (self._send(), self._listen())}
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

    async def _send(self) -> None:
        """From the log first, then as they come.

        A web process that does not keep up is held by the socket's buffer and reads the rest from
        the log: nothing queues up here.
        """
        node = self._node
        while True:
            frames = self._at_hand()
            if frames is None:
                read = node.read_batches
                batches = await asyncio.to_thread(read, self._after, max_bytes=LOG_BYTES)
                frames = [_frame(batch) for batch in batches]
            for frame in frames:
                self._write(frame)
                await self._writer.drain()
            await node.changed.wait_for(self._lags)

    def _lags(self) -> bool:
        """Whether something is left to send after what can be written in passing.

        In passing: in the turn of the event loop that tells of a change, as a turn of this task's
        own would come after those of all others who wait for changes.
        """
        if self._writer.transport.get_write_buffer_size() == 0:
            for frame in self._at_hand() or ():
                self._write(frame)
        return self._node.ring.newest > self._after

    def _at_hand(self) -> list[FeedBatch] | None:
        """Frames of what follows, None where only the log holds it."""
        ring = self._node.ring
        if not self._whole:
            count = ring.newest - self._after
            return [FeedBatch(self._after + 1, count)] if count > 0 else []
        entries = ring.after(self._after)
        return None if entries is None else [_frame(entry.batch) for entry in entries]

    def _write(self, frame: FeedBatch) -> None:
        self._writer.write(ipc.pack(frame))
        self._after = frame.first_offset + frame.count - 1


def _frame(batch: Batch) -> FeedBatch:
    place = batch.first_offset, batch.count, batch.ingested_at, batch.term
    return FeedBatch(*place, batch.text, _is_for_all(batch))


def _is_for_all(batch: Batch) -> bool:
    """Whether it may hold a decision or an emergency stop."""
    if batch.heads is None or "emergency_stop" in batch.heads.types.values:
        return True
    return batch.text.startswith(BEGINNING)
