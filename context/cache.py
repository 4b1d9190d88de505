"""Closed blocks in memory; what fell out is read from the log again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from context.block import Block, Bounds
from context.errors import NotFound
from context.items import Batch
from context.ports import Log

Load = Callable[[Bounds], Block]


class BlockCache:
    """Least recently used out first, bounded by bytes; always holds at least one block.

    For any number of threads without a lock: each step is one dict operation, atomic under the
    interpreter's lock. Two readers may load the same block at once, which costs time only.
    """

    def __init__(self, load: Load, max_bytes: int) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Memory held now."""
        return sum(block.nbytes for block in list(self._blocks.values()))

    def get(self, bounds: Bounds, *, aside: bool = False) -> Block:
        """The block of these bounds, loaded where needed; `aside` pushes no other one out."""
        block = self._blocks.get(bounds.first_offset)
        if block is None:
            block = self._load(bounds)
            if not aside or self.nbytes + block.nbytes <= self._max_bytes:
                self.put(block)
        else:
            with suppress(KeyError):  # another reader's load pushed it out just now
                self._blocks.move_to_end(bounds.first_offset)
        return block

    def put(self, block: Block) -> None:
        """Keep a block, and let go of the oldest where there is no room."""
        self._blocks[block.first_offset] = block
        # Summing anew needs no lock, unlike a running total, and is small beside loading a block.
        while len(self._blocks) > 1 and self.nbytes > self._max_bytes:
            with suppress(KeyError):
                self._blocks.popitem(last=False)

    def drop(self, first: int) -> None:
        """Let go of the block that begins at an offset."""
        self._blocks.pop(first, None)


def load_from(log: Log) -> Load:
    """How to make a block again: its batches are read from the log.

    The result raises NotFound where the log has dropped them.
    """

    def load(bounds: Bounds) -> Block:
        batches: list[Batch] = []
        after = bounds.first_offset - 1
        while after < bounds.last_offset:
            found = log.read(after, max_bytes=bounds.nbytes)
            if not found or found[0].first_offset > after + 1:
                raise NotFound(f"the log does not hold offset {after + 1} any more")
            batches += found
            after = found[-1].last_offset
        return Block.of([each for each in batches if each.last_offset <= bounds.last_offset])

    return load
