"""The worker of searches by meaning: model and vectors in a process of its own, on a Unix socket.

Operations: `begin {epoch}` and `add {after, reached, passages}` of the one that follows the log,
`search {query, wish}`, `status {}`. New texts are embedded in a thread of the lowest priority, so
that neither searches nor other processes wait for them. Messages are those of
`ai_bridge.adapters.frames`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import torch

from ai_bridge.adapters.frames import BadFrame, frame, read_frame
from context.semantic_text import Passage, template_of
from server.semantic.encoder import Encoder
from server.semantic.store import Vectors, VectorStore
from server.semantic.wish import Wish

NICENESS, NICENESS_EMBEDDING = 10, 19
COMMIT_S = 1.0
TEXTS_AT_ONCE = 8  # more are hardly faster each
log = logging.getLogger(__name__)
Message = dict[str, Any]


class Refused(Exception):
    """The worker does not do what was asked; the text says why."""


def run_worker(socket_path: Path, folder: Path, model: Path, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, vectors lying in `folder`, the model's files in `model`."""
    os.nice(NICENESS)
    torch.set_num_threads(1)
    asyncio.run(Worker(Encoder(model), folder).serve(socket_path, on_ready))


class Worker:
    """Answers requests; one log at a time, named by the last `begin`."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder, self._folder = encoder, folder
        self._store: VectorStore | None = None
        self._epoch, self._saved = "", -1
        self._adding = asyncio.Lock()
        self._embedding = ThreadPoolExecutor(1, "embed", initializer=_give_way)
        self._stop = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._operations: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "begin": self._begin,
            "add": self._add,
            "search": self._search,
            "status": self._status,
        }

    async def serve(self, path: Path, on_ready: Callable[[], None]) -> None:
        """Listen until told to stop."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connected, path)
        path.chmod(0o600)
        on_ready()
        saving = asyncio.create_task(self._save())
        await self._stop.wait()
        server.close()
        for task in (saving, *self._open):
            task.cancel()
        await asyncio.gather(saving, *self._open, return_exceptions=True)
        self._embedding.shutdown(cancel_futures=True)
        self._commit()
        path.unlink(missing_ok=True)

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            try:
                self._commit()
            except OSError as full:
                log.warning("vectors not stored", extra={"reason": str(full)})

    def _commit(self) -> None:
        if self._store is not None and self._store.applied != self._saved:
            self._store.commit()
            self._saved = self._store.applied

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                writer.write(frame(await self._answer(await read_frame(reader))))
                await writer.drain()
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        except BadFrame as garbage:
            log.warning("closing a connection", extra={"reason": str(garbage)})
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: Message) -> Message:
        operation = self._operations.get(str(request.get("op")))
        try:
            if operation is None:
                raise Refused(f"unknown op {request.get('op')!r}")
            return {"ok": True, **await operation(request)}
        except (Refused, OSError, KeyError, msgspec.ValidationError) as wrong:
            return {"ok": False, "error": f"{request.get('op')}: {wrong}"}

    async def _begin(self, request: Message) -> Message:
        async with self._adding:
            if self._store is None or self._epoch != request["epoch"]:
                self._commit()
                if self._store is not None:
                    self._store.close()
                self._epoch = str(request["epoch"])
                self._store = VectorStore(self._folder, self._epoch)
                self._saved = self._store.applied
            return self._state(self._store)

    async def _add(self, request: Message) -> Message:
        """Embed and take in what follows `after`; `oldest` tells what retention has left."""
        passages = msgspec.convert(request["passages"], list[Passage])
        async with self._adding:
            store = self._begun()
            if store.applied != request["after"]:
                raise Refused(
                    f"{request['after']} is not {store.applied}, where the last one ended"
                )
            unknown = sorted(store.unknown([each.template for each in passages]), key=len)
            loop, vectors = asyncio.get_running_loop(), dict[str, Vectors]()
            for start in range(0, len(unknown), TEXTS_AT_ONCE):
                part = unknown[start : start + TEXTS_AT_ONCE]
                made = await loop.run_in_executor(self._embedding, self._encoder.encode, part)
                vectors.update(zip(part, made, strict=True))
            store.append(passages, vectors, int(request["reached"]))
            store.forget(int(request["oldest"]))
            return self._state(store)

    async def _search(self, request: Message) -> Message:
        store = self._begun()
        wish = msgspec.convert(request["wish"], Wish)
        (vector,) = self._encoder.encode([template_of(str(request["query"]))])
        return {"found": store.search(vector, wish), **self._state(store)}

    async def _status(self, request: Message) -> Message:
        return self._state(self._begun())

    def _begun(self) -> VectorStore:
        if self._store is None:
            raise Refused("no log was begun")
        return self._store

    def _state(self, store: VectorStore) -> Message:
        return {"applied": store.applied, "texts": store.texts, "items": store.items}


def _give_way() -> None:
    """Let everything else on the machine go before this thread."""
    if sys.platform == "linux":  # elsewhere a priority belongs to the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS_EMBEDDING)
