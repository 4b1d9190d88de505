"""The agent process: wires one node together and runs it.

Nothing here imports eventlet or torch: heartbeats must not wait for a page or a model.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ai_bridge.adapters.digests import code_version, digest_of
from ai_bridge.adapters.http import Http
from ai_bridge.adapters.kinds import Services, load_classes
from ai_bridge.adapters.model_torch import TorchModel
from ai_bridge.asking import Guard
from ai_bridge.bridge import Bridge
from ai_bridge.models.builtin import builtin_models
from ai_bridge.settings import ModelSettings
from context import ingest
from context.adapters.archive import Archive, Sealer
from context.adapters.mending import loader, recover
from context.adapters.tokenizer_hf import load as load_tokenizer
from context.damage import DamagedLog, bad_line
from context.errors import ForeignHistory
from context.hub import Ring
from context.index import Index
from context.items import Batch
from context.types import Types
from nodes.adapters.lease_local import LocalLease
from nodes.adapters.parent import announce_ready, announce_refused
from nodes.adapters.probe import CapabilityProbe, HealthProbe
from nodes.errors import NodeError
from server.agent import (
    ai_calls,
    blob_calls,
    consensus_calls,
    context_calls,
    export_calls,
    model_calls,
    node_calls,
    tensor_calls,
    ticket_calls,
)
from server.agent.backtests import Backtests
from server.agent.cluster import measure
from server.agent.ipc_server import IpcServer
from server.agent.keeping import keep
from server.agent.metrics import AgentMetrics
from server.agent.node import Node
from server.agent.observer import observe
from server.agent.outcomes import Judging, recall_outcomes
from server.agent.part import Part, open_part
from server.agent.reigns import while_leading
from server.agent.resting import rest
from server.agent.semantic_follower import follow_sentences
from server.agent.sources import start_sources
from server.agent.tensor_follower import follow
from server.agent.trader import Trader
from server.agent.trading_calls import Trading
from server.agent.webhook_calls import Webhooks
from server.child import read_settings, settle, start_logs
from server.config import Settings
from server.loops import compile_loops, uncompiled
from server.paths import agent_socket, semantic_socket, worker_socket
from server.semantic.client import SemanticClient

log = logging.getLogger(__name__)
T = TypeVar("T")
RING_BYTES = 16 << 20  # for web processes that follow; older batches come from the log
REBUILD_BYTES = 8 << 20
CALLS = {
    **context_calls.CALLS,
    **export_calls.CALLS,
    **tensor_calls.CALLS,
    **ai_calls.CALLS,
    **consensus_calls.CALLS,
    **model_calls.CALLS,
    **node_calls.CALLS,
    **blob_calls.CALLS,
    **ticket_calls.CALLS,
}


def build_node(settings: Settings, part: Part) -> Node:
    """The object graph of one node; call it inside the event loop."""
    log_, state = part.log, part.state
    metrics = AgentMetrics()
    archive = Archive(settings.data_dir, on_damage=metrics.damaged_blocks.inc)
    recover(archive, log_)
    sealer = Sealer(archive, log_)
    torch = TorchModel(str(worker_socket(settings))) if settings.torch_worker else None
    tuned = {
        stored.key: ModelSettings(**msgspec.json.decode(stored.value))
        for stored in state.list("model", limit=1000)
    }
    bridge = Bridge(
        [],
        rule="static" if settings.consensus == "static" else "learned",
        coverage=settings.coverage,
    )
    for model in builtin_models():
        settings_now = tuned.get(model.name, ModelSettings())
        bridge.add(model, settings_now, digest=digest_of(model))
    if torch:
        bridge.add(torch, tuned.get(torch.name, ModelSettings()), Guard(), digest_of(torch))
    types = Types()
    for stored in state.list("type", limit=10_000, newest_first=False):
        types.register(stored.key, msgspec.json.decode(stored.value))
    return Node(
        settings=settings,
        log=log_,
        archive=archive,
        sealer=sealer,
        index=Index(
            sealer.held_or(loader(archive, log_)),
            settings.search_cache_mb << 20,
            sealed=archive.heads(),
            lost=archive.lost.values(),
            slices=archive.slices,
            on_closed=sealer.submit,
        ),
        ring=Ring(RING_BYTES, newest=log_.bounds()[1]),
        types=types,
        state=state,
        blobs=part.blobs,
        bridge=bridge,
        torch=torch,
        semantic=SemanticClient(semantic_socket(settings)) if settings.semantic else None,
        services=Services(
            Http(), os.environ, settings.api_keys, settings.data_dir / "prompts", torch
        ),
        metrics=metrics,
        leadership=part.leadership,
        follows=part.follows,
        capabilities=CapabilityProbe(settings.data_dir).measure(),
        code=code_version(),
        tokenizers={
            model: load_tokenizer(Path(path)) for model, path in settings.tokenizers.items()
        },
    )


def rebuild(node: Node, stopped: asyncio.Event) -> None:
    """Apply what is not sealed to the index (in a thread); `not_ready` tells how far it is.

    Raises DamagedLog naming the first item that is none.
    """
    newest, after = node.log.bounds()[1], node.snapshot().newest
    while after < newest and not stopped.is_set():
        for batch in node.log.read(after, max_bytes=REBUILD_BYTES):
            if batch.first_offset > after:  # sealed, but a crash came before the log was trimmed
                _apply(node, batch)
                after = batch.last_offset
        node.not_ready = f"reading the log into the index, {(after + 1) / (newest + 1):.0%} done"
    _apply(node, None)
    node.newest_entry = node.snapshot().newest  # any of these may be one


def _apply(node: Node, batch: Batch | None) -> None:
    """Take in a batch; without one, make the columns of what has none yet."""
    fresh = node.snapshot().fresh
    try:
        if batch:
            node.index.apply(batch)
        else:
            len(node.snapshot())
    except (ValueError, msgspec.MsgspecError) as exc:
        bad = bad_line((*fresh, batch) if batch else fresh)
        if bad is None:
            raise
        raise DamagedLog(str(node.settings.data_dir / "log.db"), *bad) from exc


async def run(settings: Settings, term: int) -> None:
    """Run the node until SIGTERM."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    part = await _unless(stopped, open_part(settings, term))
    if part is None:
        return
    node = build_node(settings, part)
    webhooks = Webhooks(node)
    trader = Trader(node)
    calls = {
        **CALLS,
        **webhooks.calls(),
        **Backtests(node).calls(),
        **Trading(node, trader).calls(),
    }
    server = await IpcServer(node, calls).start(agent_socket(settings))
    node.spawn(node.metrics.watch_loop())
    try:
        if missing := uncompiled():
            node.not_ready = "compiling the loops of this version, some ten seconds"
            log.info(node.not_ready)
            await _unless(stopped, compile_loops(missing))
        if not stopped.is_set():
            await asyncio.to_thread(ingest.prepare)
        await asyncio.to_thread(rebuild, node, stopped)
        if not stopped.is_set():
            await _serve(node, part, webhooks, trader, stopped)
    finally:
        server.close()
        await node.leadership.stop()
        await node.stop()
        await part.close()


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Wait for `work`, but not once the node is told to stop: then None."""
    task, told = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    for each in (task, told):
        each.cancel()  # nothing happens to one that is done
    await asyncio.gather(told, return_exceptions=True)
    if task.done():
        return task.result()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def _serve(
    node: Node, part: Part, webhooks: Webhooks, trader: Trader, stopped: asyncio.Event
) -> None:
    """Take part in the work until told to stop."""
    await asyncio.to_thread(recall_outcomes, node)
    await asyncio.to_thread(load_classes, node.settings.model_modules)
    await asyncio.to_thread(model_calls.recall_models, node)
    node.sealer.start(node.index.block)
    await part.serve(node)
    await trader.start()
    settle()
    node.not_ready = None
    log.info("ready", extra={"term": node.term, "items": node.snapshot().newest + 1})
    announce_ready(f"term {node.term}")
    start_sources(node, HealthProbe(node.settings.node_id, node.settings.data_dir))
    node.spawn(while_leading(node.leadership, webhooks.run))
    node.spawn(measure(node, CapabilityProbe(node.settings.data_dir)))
    node.spawn(while_leading(node.leadership, Judging(node).run))
    node.spawn(node.chain.run())
    node.spawn(follow(node))
    node.spawn(keep(node))
    node.spawn(rest(node))
    if node.semantic:
        node.spawn(follow_sentences(node, node.semantic))
    if node.torch:
        node.spawn(observe(node, node.torch))
    await stopped.wait()


def main() -> None:
    """Entry of the child process."""
    settings = read_settings()
    start_logs(settings, "agent")
    try:
        term = LocalLease(settings.data_dir).acquire()
        asyncio.run(run(settings, term))
    except (NodeError, DamagedLog, ForeignHistory) as exc:
        announce_refused(str(exc))
        raise SystemExit(1) from exc
