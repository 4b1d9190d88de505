"""`--reindex`: verify and index anew a node's data while the node is down."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from rich.text import Text

from context.adapters.archive import Archive
from context.adapters.log_sqlite import SqliteLog
from context.adapters.reindexing import reindex
from context.errors import ContextError
from nodes.adapters.lease_local import LocalLease
from nodes.errors import NodeError
from server.cli.progress import indexing
from server.cli.screen import Screen
from server.cli.verbs import DONE, FAILED
from server.config import Settings


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Do it; the status is FAILED too where something is lost."""
    screen, folder = Screen(as_json=args.json), settings.data_dir
    if not (folder / "log.db").exists():
        screen.complain(f"{folder} holds no node's data")
        return FAILED
    lease = LocalLease(folder)
    try:
        lease.acquire()  # refuses while a node runs there
        report = _reindex(settings, screen, lines=args.progress)
    except (NodeError, ContextError) as exc:
        screen.complain(str(exc))
        return FAILED
    finally:
        lease.release()
    screen.show(report, Text(_told(report)))
    for lost in report["damaged"]:
        screen.complain(f"items {lost['first']} to {lost['last']} are lost: their block is damaged")
    return FAILED if report["damaged"] else DONE


def _reindex(settings: Settings, screen: Screen, *, lines: bool) -> dict[str, Any]:
    started, folder = time.monotonic(), settings.data_dir
    log_ = SqliteLog(folder / "log.db")
    try:
        archive = Archive(folder)
        with indexing(screen.err, lines=lines) as progress:
            done = reindex(archive, log_, threads=len(os.sched_getaffinity(0)), progress=progress)
    finally:
        log_.close()
    took = time.monotonic() - started
    return {
        "blocks": done.blocks,
        "items": done.items,
        "bytes": done.nbytes,
        "mended": done.mended,
        "damaged": [{"first": first, "last": last} for first, last in archive.lost_ranges()],
        "elapsed_s": round(took, 3),
        "items_per_s": round(done.items / max(took, 1e-3)),
    }


def _told(report: dict[str, Any]) -> str:
    mended = f", {report['mended']} made again from the log" if report["mended"] else ""
    return (
        f"{report['items']:,} items in {report['blocks']:,} blocks verified and indexed{mended}"
        f" in {report['elapsed_s']:g} s, {report['items_per_s']:,} items/s"
    )
