"""`--verify-decisions --data DIR`: walk over the stored bytes themselves while the node is down."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import msgspec

from ai_bridge.chain import Head
from ai_bridge.chain_walk import Report, Walk, holes
from context.adapters.archive import Archive
from context.adapters.log_sqlite import SqliteLog
from context.adapters.mending import read_after, recover
from context.errors import ContextError
from context.ports import Log
from nodes.adapters.lease_local import LocalLease
from nodes.errors import NodeError
from server.agent.chain import KEY, KIND
from server.cli.progress import verifying
from server.cli.screen import Screen
from server.cli.verifying import FAILED, show_report
from server.config import Settings
from shared_storage.adapters.sqlite import SqliteStateStore
from shared_storage.errors import StorageError

READ_BYTES = 8 << 20


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Do it; the status is FAILED where the chain is not whole."""
    screen, folder = Screen(as_json=args.json), settings.data_dir
    if not (folder / "log.db").exists():
        screen.complain(f"{folder} holds no node's data")
        return FAILED
    lease = LocalLease(folder)
    try:
        lease.acquire()  # refuses while a node runs there
        report = _verify(folder, screen, args.head)
    except (NodeError, ContextError, StorageError) as exc:
        screen.complain(str(exc))
        return FAILED
    finally:
        lease.release()
    return show_report(screen, report)


def _verify(folder: Path, screen: Screen, kept: Head | None) -> Report:
    log_ = SqliteLog(folder / "log.db")
    try:
        archive = Archive(folder)
        recover(archive, log_)  # what is damaged is not taken for what retention dropped
        sealed = [head.bounds for head in archive.heads()]
        lost = archive.lost_ranges()
        here = [(each.first_offset, each.last_offset) for each in sealed]
        walk = Walk(log_.epoch, dropped=holes([*here, *lost, log_.bounds()]), lost=lost)
        for head in (_saved(folder), kept):
            if head:
                walk.expect(head)
        newest = log_.bounds()[1]
        with verifying(screen.err, newest + 1) as show:
            _walk_over(archive, log_, walk, show)
        walk.lost = archive.lost_ranges()
    finally:
        log_.close()
    return walk.finish()


def _saved(folder: Path) -> Head | None:
    state = SqliteStateStore(folder / "state.db")
    try:
        stored = state.get(KIND, KEY)
    finally:
        state.close()
    return Head(**msgspec.json.decode(stored.value)) if stored else None


def _walk_over(archive: Archive, log_: Log, walk: Walk, show: Callable[[int, int], None]) -> None:
    """Every line that may be an entry, in order, from blocks and log."""
    after, newest = -1, log_.bounds()[1]
    while after < newest:
        batches = read_after(archive, log_, after, max_bytes=READ_BYTES)
        if not batches:
            return
        for batch in batches:
            if batch.first_offset > after + 1:
                walk.lost = archive.lost_ranges()  # a damaged block was met just now
            walk.see_text(batch.first_offset, batch.text)
            after = batch.last_offset
        show(after + 1, walk.entries)
