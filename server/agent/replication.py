"""A node's part in its cluster: the connection, the stream, the copies, and what follows it.

Becoming part of a cluster, once in the life of a data folder:

    the cluster is known to the bucket  ->  adopt its epoch, begin to follow
    it is not, and this node has items  ->  found it at once, bring all history into the stream
    it is not, and this node is empty   ->  wait a moment for one that has items, then found it

A node that was part of the cluster before starts without asking anybody and serves what it has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from nats.aio.client import Client
from rich.console import Console

from context.adapters.archive import Archive
from context.adapters.importing import import_changes, import_items
from context.adapters.log_applied import AppliedLog
from context.adapters.log_jetstream import ItemsApplier, JetStreamLog
from context.adapters.mending import read_after
from context.errors import ContextError
from context.items import Batch
from nodes.adapters.lease_nats import BUCKET as LEASE
from nodes.adapters.nats_client import connect
from nodes.engine import Address, replicas
from nodes.leadership import Leadership
from nodes.protocol import PROTOCOL
from server.agent.alone import BLOBS
from server.agent.founding_bar import bringing
from server.config import Settings
from server.engine import engine_settings
from shared_storage.adapters.blobs_fs import FileBlobs
from shared_storage.adapters.blobs_object_store import ObjectBlobs
from shared_storage.adapters.cluster_meta import ClusterMeta, finish, found, read_meta
from shared_storage.adapters.replica import Applier, Replica
from shared_storage.adapters.state_replicated import AppliedState, OnApplied, ReplicatedState
from shared_storage.adapters.stream_jetstream import JetStream, step_down
from shared_storage.envelope import Kind
from shared_storage.errors import HistoryGone, NewerMessage, OutcomeUnknown, StreamDown
from shared_storage.ports import BlobStore

log = logging.getLogger(__name__)
STREAM = "context-log"
READ_BYTES = 16 << 20
AGAIN_S = 0.25
BEHIND_S = 0.003  # the engine asked is a moment behind the one that acknowledged
IDLE_S = 0.5
OWN_ENGINE_S = 10.0
STARTED_S = 0.02


class Replication:
    """The log and the state of one node of a cluster. Make it with `join`."""

    def __init__(
        self,
        client: Client,
        stream: JetStream,
        meta: ClusterMeta,
        log_: AppliedLog,
        state: AppliedState,
    ) -> None:
        self.client, self.stream, self.meta = client, stream, meta
        self._items = ItemsApplier(log_, schema=PROTOCOL)
        appliers: dict[Kind, Applier] = {Kind.ITEMS: self._items, Kind.STATE: state}
        self.replica = Replica(stream, appliers, epoch=meta.epoch, term=log_.term)
        self._state_copy = state
        self.log = JetStreamLog(self.replica, self._items)
        self.replica.leads = lambda term: False
        self._leadership: Leadership | None = None
        self.state = ReplicatedState(self.replica, state, self._term)
        self.problem = ""  # why this node cannot follow any more

    def serve(
        self,
        leadership: Leadership,
        take: Callable[[Sequence[Batch]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        on_change: OnApplied,
    ) -> None:
        """Begin to follow; call it when the index holds what the copy held.

        `take` is called with what was applied, in the thread that did it. What is sealed already
        may come again after a loss of power: it has to be left out there. `on_change` hears of
        each change of the state, in such a thread too.
        """
        self._leadership = leadership
        self.log.speaks = lambda: leadership.speaks
        self.replica.leads = lambda term: leadership.leading and leadership.term == term

        def on_applied(batches: Sequence[Batch]) -> None:
            try:
                take(batches)
            except Exception:  # stored but not indexed: only a restart sets that right
                log.critical("the index refused what is stored; starting anew", exc_info=True)
                os._exit(1)

        self._items.on_applied = on_applied
        self._state_copy.on_applied = on_change
        spawn(self._follow())

    async def fence(self, term: int) -> None:
        """Apply the stream to its tail and begin a reign; raises StaleTerm, StreamDown,
        OutcomeUnknown."""
        await asyncio.to_thread(self.replica.fence, term)

    def settle(self) -> None:
        """Wait until no write of this node is under way (not on the event loop)."""
        with self.replica.lock:
            return

    async def leave(self, engine: str) -> None:
        """Have other engines lead what this one leads: what is on its way to one that ends would
        be lost, and never be answered."""
        for name in (STREAM, f"KV_{LEASE}"):
            await step_down(self.client, name, engine)

    async def close(self) -> None:
        """Remember how far the copies are, and leave the engine."""
        await asyncio.to_thread(self.replica.note)
        await self.client.close()
        self.log.close()
        self._state_copy.close()

    def _term(self) -> int:
        return self._leadership.term if self._leadership else 0  # nothing is written before

    async def _follow(self) -> None:
        """Apply what others write, in order, as soon as it is acknowledged."""
        heard, newest = asyncio.Event(), 0

        def hear(sequence: int) -> None:
            nonlocal newest
            newest = max(newest, sequence)
            heard.set()

        await self.stream.watch(hear)
        hinted = stuck = False
        while True:
            heard.clear()
            if hinted and newest <= self.replica.applied:  # its own writes, or applied already
                hinted = await _heard_within(heard, IDLE_S)
                continue
            try:
                messages = await self.stream.read_on(self.replica.applied)
                took = len(messages)
                if messages:
                    await asyncio.to_thread(self.replica.take, messages)
            except StreamDown:
                await asyncio.sleep(AGAIN_S)
                continue
            except (HistoryGone, NewerMessage) as exc:
                self.problem = exc.detail
                log.critical("this node cannot follow", extra={"reason": exc.detail})
                return
            except (ContextError, sqlite3.Error) as exc:  # such as a full disk: room may come back
                if not stuck:
                    log.error("this node stores nothing now", extra={"reason": str(exc)})
                stuck = True
                await asyncio.sleep(AGAIN_S)
                continue
            if stuck:
                log.info("this node stores again", extra={"sequence": self.replica.applied})
            stuck = False
            if not took and newest > self.replica.applied:
                await asyncio.sleep(BEHIND_S)
            elif not took:
                hinted = await _heard_within(heard, IDLE_S)


async def join(settings: Settings, term: int) -> Replication:
    """Be part of the cluster; waits for a majority where this node never was.

    Raises ForeignHistory where this node holds items of another history.
    """
    told = engine_settings(settings)
    log_, state = (
        AppliedLog(settings.data_dir / "log.db"),
        AppliedState(settings.data_dir / "state.db"),
    )
    engines = [told.own, *(peer for peer in told.peers if peer != told.own)]
    urls = settings.nats_url.split(",") if settings.nats_url else []
    if not urls:
        await _started(told.own)
    client = await connect(engines, told.secret, tls=told.tls, urls=urls)
    count = replicas(len(told.peers))
    if state.cluster is None:
        founding = _Founding(client, count, settings, log_, state)
        meta = await founding.run(max(term, log_.term))
        log_.adopt(meta.epoch)
        state.join(msgspec.json.encode(meta))
    else:
        meta = msgspec.json.decode(state.cluster, type=ClusterMeta)
    stream = JetStream(client, STREAM, asyncio.get_running_loop())
    return Replication(client, stream, meta, log_, state)


async def _started(engine: Address) -> None:
    """Wait a while for this node's own engine, which starts beside: it is the one to talk to."""
    with suppress(TimeoutError):
        async with asyncio.timeout(OWN_ENGINE_S):
            while not await _listens(engine):
                await asyncio.sleep(STARTED_S)


async def _listens(engine: Address) -> bool:
    try:
        _, writer = await asyncio.open_connection(engine.host, engine.client_port)
    except OSError:
        return False
    writer.close()
    return True


class _Founding:
    """How a data folder becomes part of a cluster."""

    def __init__(
        self, client: Client, count: int, settings: Settings, log_: AppliedLog, state: AppliedState
    ) -> None:
        self._client, self._count, self._settings = client, count, settings
        self._log, self._state = log_, state

    async def run(self, term: int) -> ClusterMeta:
        """The cluster, found or founded; tries until a majority answers."""
        me, empty_for = self._settings.node_id, 0.0
        while True:
            try:
                meta = await read_meta(self._client, self._count)
                if meta is None and (
                    self._log.next_offset or empty_for >= self._settings.found_after_s
                ):
                    mine = ClusterMeta(self._log.epoch, term, me)
                    meta = mine if await found(self._client, self._count, mine) else None
                if meta is not None:
                    self._log.adopt(meta.epoch)
                if meta is not None and meta.founder == me and not meta.ready:
                    await self._bring_history(meta)
                elif meta is not None and meta.ready:
                    return meta
                else:
                    empty_for += AGAIN_S
            except (StreamDown, OutcomeUnknown) as exc:
                log.info("waiting for the cluster", extra={"reason": exc.detail})
            await asyncio.sleep(AGAIN_S)

    async def _bring_history(self, meta: ClusterMeta) -> None:
        """Make the stream of what this node has; from the beginning after each failure."""
        stream = await JetStream.open(
            self._client,
            STREAM,
            replicas=self._count,
            max_bytes=self._settings.stream_max_gb << 30,
            anew=True,
        )
        await asyncio.to_thread(self._import, stream, meta)
        blobs = ObjectBlobs(self._client, replicas=self._count)
        await asyncio.to_thread(_bring, FileBlobs(self._settings.data_dir / BLOBS), blobs)
        await finish(self._client, self._count, meta)
        log.info("founded the cluster", extra={"epoch": meta.epoch})

    def _import(self, stream: JetStream, meta: ClusterMeta) -> None:
        archive = Archive(self._settings.data_dir)

        def read(after: int) -> list[Batch]:
            return read_after(archive, self._log, after, max_bytes=READ_BYTES)

        with bringing(self._log.next_offset, Console(stderr=True)) as told:
            _, term = import_items(
                stream,
                read,
                self._log.keys(),
                epoch=meta.epoch,
                schema=PROTOCOL,
                told=lambda offset: told(offset + 1),
            )
        changes = self._state.changes()
        sequence = import_changes(stream, changes, epoch=meta.epoch, term=term)
        self._log.note(sequence, term)
        self._state.note(sequence)


def _bring(own: BlobStore, shared: BlobStore) -> None:
    for blob in own.list():
        shared.put(own.get(blob.digest), expected=blob.digest)


async def _heard_within(heard: asyncio.Event, seconds: float) -> bool:
    try:  # not wait_for: Python 3.11's loses a cancellation that comes at that moment
        async with asyncio.timeout(seconds):
            return await heard.wait()
    except TimeoutError:
        return False
