"""Sealed blocks in memory: for tests, and for nodes that keep nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from context.errors import NotFound
from context.sealed import Head, read_head


class MemoryBlocks:
    """The BlockStore port in a dict."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytes] = {}

    def put(self, blocks: Sequence[bytes]) -> None:
        """Keep blocks; see `context.ports.BlockStore`."""
        self._blocks |= {read_head(block).bounds.first_offset: block for block in blocks}

    def list(self) -> list[Head]:
        """Heads of all blocks in order."""
        return [read_head(block) for _, block in sorted(self._blocks.items())]

    def get(self, first: int) -> bytes:
        """The block as it was put."""
        if first not in self._blocks:
            raise NotFound(f"no block begins at offset {first}")
        return self._blocks[first]

    def delete(self, firsts: Collection[int]) -> None:
        """Let go of blocks."""
        for first in firsts:
            self._blocks.pop(first, None)

    def set_aside(self, first: int) -> str:
        """Let go of a damaged block."""
        self._blocks.pop(first, None)
        return "memory"
