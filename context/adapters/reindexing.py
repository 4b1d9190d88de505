"""All of the index anew, offline: every block verified, all n-grams made again.

Blocks are read, checked and hashed in several threads: checksums, zstd and the compiled loop run
beside each other. What is damaged is mended as on a running node.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.adapters.archive import Archive
from context.adapters.mending import recover, whole
from context.block import Block, Bounds
from context.damage import DamagedLog, UnavailableBlock, bad_line
from context.ngrams import Hasher
from context.ports import Log
from context.sealed import folds

A = TypeVar("A")
B = TypeVar("B")
_LOG_BYTES = 8 << 20  # of the log at a time
_AHEAD = 4  # blocks a thread may be ahead of the writer


@dataclass(slots=True)
class Reindexed:
    """What was found and made."""

    blocks: int = 0  # sealed
    items: int = 0  # in blocks and in the log, each counted once
    nbytes: int = 0  # of their lines
    mended: int = 0  # damaged blocks that the log could make again


def reindex(
    archive: Archive, log_: Log, *, threads: int, progress: Callable[[int, int, int], None]
) -> Reindexed:
    """Verify and index all blocks, then verify the log; what is lost is in `archive.lost`.

    `progress` hears of the blocks done, of how many there are, and of the items so far.

    Raises DamagedLog naming the first item of the log that is none, StorageFull.
    """
    report = Reindexed()
    known, found = len(archive.lost), _count(archive)
    recover(archive, log_)
    archive.forget_rows(0, 1 << 62)
    bounds = [head.bounds for head in archive.heads()]
    local = threading.local()

    def work(each: Bounds) -> tuple[Bounds, NDArray[np.uint8], bool] | None:
        if not hasattr(local, "hasher"):
            local.hasher = Hasher()
        try:
            block = whole(archive, log_, each).block
        except UnavailableBlock:
            return None
        return block.bounds, local.hasher.bitmap(block.text), folds(block.text)

    for at, done in enumerate(_ahead(work, bounds, threads), start=1):
        if done:
            each, bitmap, folding = done
            archive.add(each.first_offset, bitmap, folds=folding)
            report.blocks += 1
            report.items += each.count
            report.nbytes += each.nbytes
        progress(at, len(bounds), report.items)
    _check_log(log_, max((each.last_offset for each in bounds), default=-1), report)
    report.mended = found() - (len(archive.lost) - known)
    return report


def _count(archive: Archive) -> Callable[[], int]:
    """How much damage has been found since."""
    seen: list[None] = []
    archive.on_damage = lambda: seen.append(None)
    return lambda: len(seen)


def _check_log(log_: Log, after: int, report: Reindexed) -> None:
    """Count what is not sealed yet, once each of its lines proved to be an item."""
    while batches := log_.read(after, max_bytes=_LOG_BYTES):
        try:
            Block.of(batches)
        except (ValueError, msgspec.MsgspecError) as exc:
            raise DamagedLog("the log", *(bad_line(batches) or (after + 1, str(exc)))) from exc
        report.items += sum(batch.count for batch in batches)
        report.nbytes += sum(len(batch.text) for batch in batches)
        after = batches[-1].last_offset


def _ahead(work: Callable[[A], B], inputs: Iterable[A], threads: int) -> Iterator[B]:
    """Results in order, made in several threads a few ahead of whoever takes them."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads, "reindex") as pool:
        for each in inputs:
            waiting.append(pool.submit(work, each))
            if len(waiting) >= threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
