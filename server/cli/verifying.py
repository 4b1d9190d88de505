"""`--verify-decisions` through a node: its export is read and verified here, not by the node."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec
from rich.text import Text

from ai_bridge.chain import Head
from ai_bridge.chain_walk import Report, Walk
from context.client import Client
from server.cli.progress import verifying
from server.cli.screen import Screen

ENTRIES = "ai_decision,ai_outcome,ai_trade"
_OUTSIDE = re.compile(rb'\{"id":"[a-z0-9]+:(\d+)","offset":\d+,"ingested_at":[^,]+,')
DONE, FAILED = 0, 1


class Sink(io.RawIOBase):
    """A file that gives each whole line of NDJSON to a walk, as the log holds it."""

    def __init__(self, walk: Walk, show: Callable[[int, int], None]) -> None:
        self._walk, self._show, self._rest = walk, show, b""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, chunk: Any) -> int:
        """Take a part of the export."""
        *items, self._rest = (self._rest + bytes(chunk)).split(b"\n")
        for item in items:
            outside = _OUTSIDE.match(item)
            if outside:
                self._walk.see(int(outside[1]), b"{" + item[outside.end() :])
        if items:
            self._show(self._walk.seen, self._walk.entries)
        return len(chunk)


def verify_node(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Walk over a running node's chain; FAILED where it is not whole."""
    told = client.chain()
    walk = Walk(told["epoch"], dropped=_ranges(told["dropped"]), lost=_ranges(told["damaged"]))
    walk.expect(Head(told["seq"], told["hash"]))
    walk.expect(Head(**told["saved"]))
    if args.head:
        walk.expect(args.head)
    with verifying(screen.err, None) as show:
        client.export(cast(Any, Sink(walk, show)), types=ENTRIES)
    return show_report(screen, walk.finish())


def show_report(screen: Screen, report: Report) -> int:
    """Print what was found and return the exit status."""
    screen.show(msgspec.to_builtins(report), Text(_told(report)))
    for problem in report.problems:
        screen.complain(f"item {problem.offset}: {problem.detail} ({problem.kind})")
    if report.more_problems:
        screen.complain(f"and {report.more_problems} more")
    return DONE if report.ok else FAILED


def _told(report: Report) -> str:
    if not report.entries:
        return "no decisions are kept here"
    head, anchor = report.head, report.anchor
    begins = "from the first one on"
    if anchor["seq"] >= 0:
        begins = f"after entry {anchor['seq']}, {anchor['hash']}, which is not kept any more"
    state = "every entry is as it was written" if report.ok else "NOT as they were written"
    return (
        f"{report.entries:,} entries {begins}: {state}\n"
        f"{report.replayed:,} of {report.decisions:,} decisions replay to the same bits\n"
        f"head {head['seq']}:{head['hash']}\n"
        "Keep the head elsewhere: only with it (--head) a log cut short or written anew shows."
    )


def _ranges(told: list[dict[str, int]]) -> list[tuple[int, int]]:
    return [(each["first"], each["last"]) for each in told]
