"""Calls behind an export: where it begins and ends, and its pieces; each stands for itself.

Nothing is kept between them, so a reader who goes away costs nothing, and one who comes back after
a restart of this process goes on where it was.
"""

from __future__ import annotations

import msgspec

from context.damage import LostBlock
from context.export import format_named
from context.request import ExportRequest, parse_export
from context.search import read_forward
from context.snapshot import Snapshot
from server.agent.node import Node
from server.export_frames import ExportPiece, ExportStart
from server.ipc import Answer, Request

PIECE_ITEMS, PIECE_BYTES = 2000, 1 << 20  # some 10 ms of a thread that searches need too
PIECE_SCAN_BYTES = 4 << 20  # of text looked at: a piece of a rare selection ends early


async def export_start(node: Node, request: Request) -> Answer:
    """Check the options and fix the end: what is stored from now on is not exported."""
    asked = parse_export(request.params["args"])
    return await node.scan(_start, node, asked)


def _start(node: Node, asked: ExportRequest) -> Answer:
    asked.selection()
    form, snapshot = format_named(asked.format), node.snapshot()
    start = ExportStart(
        node.log.epoch,
        snapshot.oldest - 1,
        snapshot.newest,
        form.media,
        form.suffix,
        form.head(),
        form.tail,
        node.archive.lost_ranges(),
    )
    return Answer(200, {}, msgspec.msgpack.encode(start))


async def export_piece(node: Node, request: Request) -> Answer:
    """The items that follow `after`, none beyond `until`; read and encoded in a scan thread."""
    asked = parse_export(request.params["args"])
    after, until = int(request.params["after"]), int(request.params["until"])
    piece = await node.scan(_piece, node.log.epoch, node.snapshot(), asked, after, until)
    return Answer(200, {}, msgspec.msgpack.encode(piece))


def _piece(
    epoch: str, snapshot: Snapshot, asked: ExportRequest, after: int, until: int
) -> ExportPiece:
    try:
        items, reached = read_forward(
            snapshot,
            after,
            asked.selection(),
            max_items=PIECE_ITEMS,
            max_bytes=PIECE_BYTES,
            max_scan_bytes=PIECE_SCAN_BYTES,
        )
    except LostBlock as lost:
        return ExportPiece(epoch, snapshot.oldest, lost.last, b"", (lost.first, lost.last))
    if reached > until:
        items = [item for item in items if item[0] <= until]
    body = format_named(asked.format).rows(epoch, items)
    return ExportPiece(epoch, snapshot.oldest, reached, body)


CALLS = {"export_start": export_start, "export_piece": export_piece}
