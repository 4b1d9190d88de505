"""Sealed history: blocks in files, and the n-gram rows that tell which of them may match.

Closed blocks are sealed in a thread of their own, several with one sync. Once they are durable the
log drops their batches, so nothing is stored twice. A crash between the two leaves both, and the
next start goes on behind the newest sealed block.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from context.adapters.blocks_fs import BlockFiles
from context.adapters.slices_fs import SliceFiles
from context.bitslices import BitSlices, prepare
from context.block import Block, Bounds
from context.cache import Load, load_from
from context.errors import ContextError, NotFound
from context.items import Batch
from context.ngrams import Hasher
from context.ports import Log
from context.sealed import DamagedBlock, Head, Sealed, decode, encode, folds

log = logging.getLogger(__name__)
TOGETHER = 8  # blocks sealed with one sync, where so many wait
GATHER_S = 2.0
RETRY_S = 5.0


class Archive:
    """What is sealed, for any thread; `seal` and `index` for one thread."""

    def __init__(self, folder: Path) -> None:
        self._blocks = BlockFiles(folder / "blocks")
        self._rows = SliceFiles(folder / "rows")
        self._hasher: Hasher | None = None
        self.slices = BitSlices(self._rows.list())

    def heads(self) -> list[Head]:
        """Heads of all sealed blocks, ascending."""
        return self._blocks.list()

    def read(self, first: int) -> Sealed:
        """The sealed block that begins at an offset.

        Raises NotFound where none does, DamagedBlock naming the offset and what is damaged.
        """
        try:
            return decode(self._blocks.get(first))
        except DamagedBlock as exc:
            raise DamagedBlock(f"block at offset {first}: {exc.detail}") from exc

    def seal(self, blocks: Sequence[Sealed]) -> None:
        """Make blocks durable and searchable by their n-grams. Raises StorageFull."""
        self._blocks.put([encode(sealed) for sealed in blocks])
        for sealed in blocks:
            self.index(sealed.block)

    def prepare(self) -> None:
        """Load the compiled loops, or compile them where no other start has: a second or so."""
        self._hasher = Hasher()
        prepare()

    def index(self, block: Block) -> None:
        """Add a sealed block's n-grams; a full group is written and the next one begun."""
        if self._hasher is None:
            self.prepare()
            assert self._hasher
        self._close_if_full()  # where that failed before: nothing is added until it succeeds
        bitmap = self._hasher.bitmap(block.text)
        self.slices.open.add(block.first_offset, bitmap, folds=folds(block.text))
        self._close_if_full()

    def _close_if_full(self) -> None:
        group = self.slices.open
        if group.count == group.size:
            self.slices.settle(self._rows.put(int(group.firsts[0]), group.close()))

    def unindexed(self) -> list[int]:
        """First offsets of sealed blocks that no group knows: the open group of an earlier run."""
        known = {first for group in self.slices.closed for first in group.firsts.tolist()}
        firsts = [head.bounds.first_offset for head in self.heads()]
        return [first for first in firsts if first not in known]


class Sealer:
    """The thread that seals what the index closes."""

    def __init__(self, archive: Archive, log_: Log) -> None:
        self._archive, self._log = archive, log_
        self._load = loader(archive, log_)
        self._waiting: deque[Bounds] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)

    def start(self, load: Load | None = None) -> None:
        """Begin; blocks submitted before are sealed too. `load` may know them from memory."""
        self._load = load or self._load
        self._thread.start()

    def submit(self, bounds: Bounds) -> None:
        """Seal the closed block of these bounds, soon."""
        with self._wake:
            self._waiting.append(bounds)
            self._wake.notify()

    def stop(self) -> None:
        """End after the blocks at hand; the rest stays in the log and is sealed next time."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():  # a node stopped while it starts has none yet
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Closed blocks not sealed yet."""
        return len(self._waiting)

    def _run(self) -> None:
        self._archive.prepare()
        try:
            for first in self._archive.unindexed():
                if self._stopping:
                    return
                self._archive.index(self._archive.read(first).block)
        except ContextError as exc:
            log.error("sealed blocks without n-grams", extra={"reason": exc.detail})
        while self._next():
            try:
                self._seal()
            except ContextError as exc:  # a full disk: everything is still in the log
                log.warning("blocks not sealed", extra={"reason": exc.detail})
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping, RETRY_S)

    def _next(self) -> bool:
        """Wait for work: a little longer for more, as one sync serves several blocks."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._waiting)
            self._wake.wait_for(lambda: self._stopping or len(self._waiting) >= TOGETHER, GATHER_S)
            return not self._stopping

    def _seal(self) -> None:
        bounds = [self._waiting[i] for i in range(min(TOGETHER, len(self._waiting)))]
        self._archive.seal([self._sealed(each) for each in bounds])
        for _ in bounds:
            self._waiting.popleft()
        self._log.trim(bounds[-1].last_offset)

    def _sealed(self, bounds: Bounds) -> Sealed:
        first = bounds.first_offset
        terms = self._log.terms(first, bounds.last_offset)
        return Sealed(self._load(bounds), tuple((offset - first, term) for offset, term in terms))


def loader(archive: Archive, log_: Log) -> Load:
    """How the index reads a closed block again: sealed, or where it is not yet from the log."""
    from_log = load_from(log_)

    def load(bounds: Bounds) -> Block:
        try:
            return archive.read(bounds.first_offset).block
        except NotFound:
            pass
        try:
            return from_log(bounds)
        except NotFound:  # it was sealed, and the log trimmed, between the two
            return archive.read(bounds.first_offset).block

    return load


def read_after(archive: Archive, log_: Log, after: int, *, max_bytes: int) -> list[Batch]:
    """Batches holding items after an offset, in order, from wherever they lie; [] at the end.

    Where history is missing they begin later: the first one's offset tells.
    """
    found = log_.read(after, max_bytes=max_bytes)
    if found and found[0].first_offset <= after + 1:
        return found
    for head in archive.heads():
        if head.bounds.last_offset > after:
            sealed = archive.read(head.bounds.first_offset)
            return [batch for batch in sealed.batches() if batch.last_offset > after]
    return found
