"""Pack the newest fitting context for a model, and keep what was packed."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from itertools import islice

from context.filter import Filter
from context.items import encode_item
from context.packing import Packed, PackRequest, pack
from context.query import Selection, compile_matcher
from context.scan import Scanned, descend
from context.snapshot import Snapshot
from context.tokens import NAME, estimate
from server.agent.node import Node

MOST_LOOKED_AT = 20_000  # candidates: twice the largest limit, so that left_out is told
DEADLINE_S = 2.0
KEPT = 10_000  # packed contexts; older ones are dropped
PRUNE_EVERY = 100

Candidate = tuple[int, bytes, bytes]  # offset, item JSON, line


def pack_newest(node: Node, asked: PackRequest) -> Packed:
    """Choose, render and store (in a scan thread); `context_id` finds the same bytes again."""
    snapshot = node.snapshot()
    count_tokens, name = _tokenizer(node, asked.model)
    packed = pack(
        _candidates(node.log.epoch, snapshot, asked),
        asked,
        count_tokens,
        name,
        node.cursor(snapshot.newest),
    )
    node.state.put("pack", packed.context_id, packed.body, now=time.time())
    node.packs += 1
    if node.packs % PRUNE_EVERY == 0:
        node.state.prune("pack", keep_newest=KEPT)
    return packed


def _tokenizer(node: Node, model: str | None) -> tuple[Callable[[str], int], str]:
    """The model's own tokenizer where one is configured, else the estimate, and its name."""
    own = node.tokenizers.get(model or "")
    return (own, f"tokenizer of {model}") if own else (estimate, NAME)


def _candidates(epoch: str, snapshot: Snapshot, asked: PackRequest) -> Iterator[Candidate]:
    """Items that match types, symbols and query, newest first."""
    types = frozenset(asked.context_types) if asked.context_types else None
    matcher = compile_matcher(asked.query, regex=False, ignore_case=False) if asked.query else None
    symbols = sorted(set(asked.symbols)) if asked.symbols else [None]
    walks = [
        _walk(epoch, snapshot, Selection(Filter(types=types, symbol=symbol), matcher))
        for symbol in symbols
    ]
    return islice(heapq.merge(*walks, key=lambda found: -found[0]), MOST_LOOKED_AT)


def _walk(epoch: str, snapshot: Snapshot, wish: Selection) -> Iterator[Candidate]:
    deadline = time.monotonic() + DEADLINE_S
    for step in descend(snapshot, wish, snapshot.newest + 1, Scanned(), clock=time.monotonic):
        for block, i in step.hits():
            line, offset = block.line(i), block.first_offset + i
            yield offset, encode_item(epoch, offset, block.ingested_at(i), line), line
        if time.monotonic() > deadline:
            return
