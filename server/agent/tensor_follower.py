"""Folds the log's tensor calculations into the registry: all of it at the start, then what comes.

Beside the commits, never in their way: a hash is known some milliseconds after its item. The lines
are read where the index has them, many at once; nothing of them is decoded.
"""

from __future__ import annotations

import asyncio
import logging
import time

import numpy as np

from context.block import Block
from context.damage import LostBlock
from context.errors import ContextError
from context.filter import Filter
from context.snapshot import Skipped, Snapshot
from context.tensor_keys import Seen, prepare, seen_in
from server.agent.node import Node

log = logging.getLogger(__name__)
PAUSE_S = 0.1  # gathers what comes meanwhile: many items at once cost less each
AGAIN_S = 1.0
STEP_BYTES = 4 << 20  # of lines: some milliseconds
STEPS = 4  # between two turns of an event loop that may be busy
_WISH = Filter(types=frozenset({"tensor_math"}))


async def follow(node: Node) -> None:
    """Follow the log for ever."""
    registry = node.tensors
    await asyncio.to_thread(prepare)
    while True:
        try:
            newest = node.snapshot().newest
            while registry.folded < newest:
                await asyncio.to_thread(_fold, node, newest)
        except ContextError as exc:  # retention took a block from under the reader
            log.warning("tensor hashes wait", extra={"reason": str(exc)})
            await asyncio.sleep(AGAIN_S)
            continue
        await asyncio.sleep(PAUSE_S)
        await node.changed.wait_for(lambda: node.ring.newest > registry.folded)


def _fold(node: Node, newest: int) -> None:
    """Fold some more, at most up to an offset and with half of a core.

    Not less either: who falls behind reads blocks that memory has let go.
    """
    for _ in range(STEPS):
        if node.tensors.folded >= newest:
            return
        started = time.thread_time()
        node.tensors.fold(*read_on(node.snapshot(), node.tensors.folded))
        time.sleep(time.thread_time() - started)


def read_on(snapshot: Snapshot, after: int, most: int = STEP_BYTES) -> tuple[Seen, int]:
    """What of the items after `after` is folded, and the offset up to which that is everything.

    What is gone is passed over. It ends with the block that reaches `most` bytes of lines. Raises
    UnreadableBlock.
    """
    found, reached, size = list[Seen](), max(after, snapshot.oldest - 1), 0
    for entry in snapshot.oldest_first(reached):
        assert not isinstance(entry, Skipped), "nothing is skipped without a plan"
        if not entry.bounds.excludes(_WISH):
            try:
                block = entry.aside()
                found.append(_seen(block, reached))
                size += len(block.text)
            except LostBlock:
                pass
        reached = entry.last_offset
        if size >= most:
            break
    return Seen.join(found), reached


def _seen(block: Block, after: int) -> Seen:
    first = max(after + 1 - block.first_offset, 0)
    mask = block.mask(_WISH, first, block.count)
    chosen = np.arange(first, block.count) if mask is None else np.flatnonzero(mask) + first
    ends = block.ends.astype(np.int64)
    begins = np.concatenate([[0], ends[:-1] + 1])
    return seen_in(block.text, begins[chosen], ends[chosen], chosen + block.first_offset)
