"""The agent's object graph: one node's log, index, ring, models and state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ai_bridge.adapters.kinds import Added, Services
from ai_bridge.adapters.model_torch import TorchModel
from ai_bridge.bridge import Bridge
from ai_bridge.chain import BEGINNING
from context.adapters.archive import Archive, Sealer
from context.adapters.committer import Committer
from context.adapters.disk_room import DiskRoom
from context.adapters.mending import read_after
from context.errors import ContextError, RateLimited
from context.hub import Ring
from context.index import Index
from context.ingest import encode_checked
from context.items import Batch, Cursor, Item
from context.ports import Draft, Log, Outcome, Receipt
from context.snapshot import Snapshot
from context.tensor_registry import Registry
from context.types import Types
from nodes.leadership import Leadership
from server.agent.chain import Chain
from server.agent.changed import Changed
from server.agent.learned import LEARNED, Learned
from server.agent.metrics import AgentMetrics
from server.agent.model_metrics import ModelMetrics
from server.agent.questions import Questions
from server.agent.tickets import Tickets
from server.config import Settings
from server.ids import Ids
from server.ipc import SMALL_BYTES
from server.semantic.client import SemanticClient
from shared_storage.ports import BlobStore, StateStore

T = TypeVar("T")
PassOn = Callable[[Sequence[Item], str | None, bool], Awaitable[Receipt]]  # items, key, urgent
MAX_SEARCHES_WAITING = 64


class NotReady(ContextError):
    """The node reads its log into the index; it will be ready soon."""

    code = "not_ready"
    status = 503
    retryable = True


@dataclass
class Node:
    """Everything the calls of one node work on. Built by `server.agent.main`."""

    settings: Settings
    log: Log
    archive: Archive
    sealer: Sealer
    index: Index
    ring: Ring
    types: Types
    state: StateStore
    blobs: BlobStore
    bridge: Bridge
    torch: TorchModel | None
    semantic: SemanticClient | None
    services: Services  # what added models are built with
    metrics: AgentMetrics
    leadership: Leadership
    capabilities: dict[str, Any]
    tokenizers: Mapping[str, Callable[[str], int]]
    code: str  # digest of the code that decides
    follows: bool = False  # what is written comes back through `take`, whoever wrote it
    pass_on: PassOn | None = None  # how a node that does not lead has the leader store items
    tensors: Registry = field(default_factory=Registry)
    added: dict[str, Added] = field(default_factory=dict)  # models that users added
    tickets: Tickets = field(default_factory=Tickets)
    promoted: dict[str, str] = field(default_factory=dict)  # by which report each model was
    disk_used: int = 0  # bytes of the data folder, as of the last look
    dropped_items: int = 0  # by retention and budget, since the start
    packs: int = 0  # packed contexts since the start
    feeds: list[Callable[[], dict[str, Any]]] = field(default_factory=list)
    not_ready: str | None = "starting"
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        reserve = self.settings.disk_reserve_mb << 20
        self.room = DiskRoom(self.settings.data_dir, reserve)
        self.changed = Changed()
        self.outcomes = asyncio.Lock()  # one outcome at a time: each decision is judged once
        self._scans = ThreadPoolExecutor(self.settings.search_workers, "scan")
        self._parses = ThreadPoolExecutor(1, "parse")
        self._scans_waiting = 0
        self._loads = ThreadPoolExecutor(self.settings.search_workers, "load")
        self.load = self._loads.submit  # reads a block ahead of the search that wants it
        self._tasks: set[asyncio.Task[Any]] = set()
        self.chain = Chain(self)
        self.new_id = Ids()
        self.metrics.registry.register(ModelMetrics(self.bridge))
        self.questions = Questions(self)
        self.learned = Learned(
            self.settings.data_dir / LEARNED, self.state, code=self.code, epoch=self.log.epoch
        )
        # Offsets: of the newest item written here, of the newest one that is no chain entry, and
        # one with no chain entry behind it. It is known before readers find that entry.
        self.newest_written = self.newest_told = self.newest_entry = self.snapshot().newest
        self.committer = Committer(
            self.log,
            term=lambda: self.term,
            clock=time.time,
            on_durable=_nothing if self.follows else self._durable,
            on_told=_nothing if self.follows else self._publish,
            max_waiting_bytes=self.settings.ingest_queue_mb << 20,
        )

    @property
    def term(self) -> int:
        """The newest term this node knows."""
        return self.leadership.term

    @property
    def behind(self) -> int:
        """Items that other nodes are known to have beyond this one's; 0 in the ordinary case."""
        return max(0, self.leadership.newest_offset - self.snapshot().newest)

    def check_ready(self) -> None:
        """Raise NotReady while the log is read into the index."""
        if self.not_ready:
            raise NotReady(f"this node is not ready: {self.not_ready}")

    # --- writing ---

    async def append(self, draft: Draft, *, urgent: bool = False) -> Receipt:
        """Make a draft durable; found by searches and on its way to subscribers on return.

        Raises StorageFull while only the disk's reserve is left, unless it is `urgent`.
        """
        if not urgent:
            self.room.check()
        return await self.committer.append(draft)

    def submit(self, draft: Draft, done: Callable[[Outcome], None]) -> None:
        """Have `done` called, in the event loop, with what became of a draft.

        Raises StorageFull as `append`, RateLimited where too much waits already.
        """
        self.room.check()
        self.committer.submit(draft, done)

    async def append_items(
        self, items: Sequence[Item], *, key: str | None = None, urgent: bool = False
    ) -> Receipt:
        """Append what the node itself produces; the same rules hold as for everybody."""
        if self.pass_on and not self.leadership.leading:
            return await self.pass_on(items, key, urgent)
        lines = encode_checked(items, self.types, now=time.time())
        return await self.append(
            Draft(lines.count, lines.text, key, heads=lines.heads, ends=lines.ends), urgent=urgent
        )

    def take(self, batches: Sequence[Batch]) -> None:
        """Take in what the cluster stored, in its order, in the thread that applied it."""
        newest = self.index.snapshot().newest
        new = [batch for batch in batches if batch.first_offset > newest]
        self._durable(new)
        self.loop.call_soon_threadsafe(self._publish, new)

    def _durable(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.newest_written = batch.last_offset
            chained = batch.text.startswith(BEGINNING) and self.chain.mark in batch.text
            if chained:
                self.newest_entry = batch.last_offset
            self.sealer.keep(batch)
            self.index.apply(batch)
            if not chained:
                self.newest_told = batch.last_offset

    def _publish(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.ring.add(batch)
            self.metrics.rates.add(batch.ingested_at, batch.count)
        self.changed.tell()

    # --- reading ---

    def snapshot(self) -> Snapshot:
        """The index as it is now, newest acknowledged item included."""
        return self.index.snapshot()

    def cursor(self, offset: int) -> str:
        """Cursor text of an offset in this node's log."""
        return str(Cursor(self.log.epoch, offset))

    def read_batches(self, after: int, *, max_bytes: int) -> list[Batch]:
        """Whole batches after an offset, from the log or from sealed blocks."""
        return read_after(self.archive, self.log, after, max_bytes=max_bytes)

    async def scan(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run work that reads blocks in a thread; raises RateLimited where too many wait."""
        if self._scans_waiting >= MAX_SEARCHES_WAITING:
            raise RateLimited(f"{self._scans_waiting} searches wait already; retry in a second")
        self._scans_waiting += 1
        try:
            return await self.loop.run_in_executor(self._scans, partial(work, *args, **kwargs))
        finally:
            self._scans_waiting -= 1

    async def parse(self, size: int, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run work on a body: small ones at once, large ones in a thread."""
        if size <= SMALL_BYTES:
            return work(*args, **kwargs)
        return await self.loop.run_in_executor(self._parses, partial(work, *args, **kwargs))

    # --- tasks ---

    def spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Run something beside the calls; it is cancelled when the node stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """End the tasks, then finish the writes that wait."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.committer.stop()
        await asyncio.to_thread(self.learned.settle)
        await asyncio.to_thread(self.sealer.stop)
        self._scans.shutdown(cancel_futures=True)
        self._loads.shutdown(cancel_futures=True)
        self._parses.shutdown(cancel_futures=True)


def _nothing(batches: Sequence[Batch]) -> None:
    """The items come back through `take`."""
