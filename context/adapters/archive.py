"""Sealed history: blocks in files, and the n-gram rows that tell which of them may match.

Closed blocks are sealed in a thread of their own, several with one sync. Once they are durable the
log drops their batches, so nothing is stored twice. A crash between the two leaves both, and the
next start goes on behind the newest sealed block.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from context.adapters.blocks_fs import BlockFiles
from context.adapters.framing import Frames
from context.adapters.slices_fs import SliceFiles
from context.bitslices import BitSlices, ClosedGroup, Group, prepare
from context.block import Block, Bounds
from context.cache import Load
from context.damage import LostBlock, UnreadableBlock
from context.errors import ContextError
from context.items import Batch
from context.ngrams import Hasher
from context.ports import Log
from context.sealed import DamagedBlock, Head, Sealed, decode, encode, folds

log = logging.getLogger(__name__)
TOGETHER = 8  # blocks sealed with one sync, where so many wait
GATHER_S = 2.0
RETRY_S = 5.0
HELD = 64  # blocks that wait to be sealed and need not be made again; a MiB each
FRAMES_BYTES = 16 << 20  # of batches that wait to be sealed; about 100 MiB of lines
PATIENCE = 5  # reads that the disk refuses before a block counts as lost, for this run


class Archive:
    """What is sealed, for any thread; `seal` and `index` for one thread."""

    def __init__(self, folder: Path, *, on_damage: Callable[[], None] = lambda: None) -> None:
        """`on_damage` hears of each damaged block that is found, also of those made again."""
        self.blocks = BlockFiles(folder / "blocks")
        self._rows = SliceFiles(folder / "rows")
        self._hasher: Hasher | None = None
        self._refused: Counter[int] = Counter()  # reads, by block
        self.slices = BitSlices(self._rows.list())
        self.on_damage = on_damage
        self.mending = threading.Lock()
        self.lost = {head.bounds.first_offset: head for head in self.blocks.aside.list()}
        self.blocks.delete(self.lost)  # set aside, but a crash came before they were let go

    def heads(self) -> list[Head]:
        """Heads of all sealed blocks that can be read, ascending."""
        return self.blocks.list()

    def read(self, first: int) -> Sealed:
        """The sealed block that begins at an offset.

        Raises NotFound where none does, LostBlock where it is known to be gone, DamagedBlock where
        two reads find damage, UnreadableBlock where the disk refuses; it is lost, for this run,
        where the disk does so again and again.
        """
        if lost := self.lost.get(first):
            raise LostBlock("their block is damaged", lost.bounds)
        try:
            return decode(self.blocks.get(first))
        except (DamagedBlock, OSError):
            pass
        try:
            return decode(self.blocks.get(first, fresh=True))
        except DamagedBlock as exc:
            raise DamagedBlock(f"block at offset {first}: {exc.detail}") from exc
        except OSError as exc:
            raise self._unreadable(first, exc) from exc

    def lose(self, head: Head, why: str, where: str) -> None:
        """Note that a block is gone, and tell."""
        self.lost[head.bounds.first_offset] = head
        first, last = head.bounds.first_offset, head.bounds.last_offset
        fields = {"first": first, "last": last, "reason": why, "kept": where}
        log.error("a damaged block is lost", extra=fields)
        self.on_damage()

    def lost_ranges(self) -> list[tuple[int, int]]:
        """First and last offset of each lost block, ascending."""
        bounds = [head.bounds for _, head in sorted(self.lost.items())]
        return [(each.first_offset, each.last_offset) for each in bounds]

    def _unreadable(self, first: int, exc: OSError) -> UnreadableBlock:
        head = next(each for each in self.heads() if each.bounds.first_offset == first)
        self._refused[first] += 1
        log.error("a block cannot be read", extra={"first": first, "reason": str(exc)})
        if self._refused[first] >= PATIENCE:
            self.lose(head, str(exc), "in place, for the next start")
        return UnreadableBlock(f"the disk does not give them now ({exc})", head.bounds)

    def seal(self, blocks: Sequence[Sealed]) -> None:
        """Make blocks durable and searchable by their n-grams. Raises StorageFull."""
        self.blocks.put([encode(sealed) for sealed in blocks])
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
        self.add(block.first_offset, self._hasher.bitmap(block.text), folds=folds(block.text))

    def add(self, first: int, bitmap: NDArray[np.uint8], *, folds: bool) -> None:
        """Add the n-grams of the block that begins at an offset."""
        self._close_if_full()  # where that failed before: nothing is added until it succeeds
        self.slices.open.add(first, bitmap, folds=folds)
        self._close_if_full()

    def _close_if_full(self) -> None:
        group = self.slices.open
        if group.count == group.size:
            self.slices.settle(self._rows.put(int(group.firsts[0]), group.close()))

    def forget_rows(self, first: int, last: int) -> None:
        """Forget the groups that know a block in this range; their blocks are then unindexed."""
        for group in self.slices.closed:
            if ((group.firsts >= first) & (group.firsts <= last)).any():
                self._forget(group)

    def forget_damaged_rows(self) -> None:
        """Forget the groups that proved to be damaged; their blocks are then unindexed."""
        for group in self.slices.closed:
            if group.damage:
                log.error("damaged n-grams are made again", extra={"reason": group.damage})
                self._forget(group)

    def _forget(self, group: ClosedGroup) -> None:
        self.slices.forget(group)
        self._rows.delete(int(group.firsts[0]))

    def drop(self, heads: Collection[Head], lost: Collection[Head] = ()) -> None:
        """Delete blocks that the index has forgotten, and what was kept of lost ones."""
        self.blocks.delete([head.bounds.first_offset for head in heads])
        for head in lost:
            self.lost.pop(head.bounds.first_offset, None)
            self.blocks.aside.delete(head.bounds.first_offset, head.bounds.last_offset)
        here = {head.bounds.first_offset for head in self.heads()}
        for group in self.slices.closed:
            if here.isdisjoint(group.firsts.tolist()):
                self._forget(group)

    def unindexed(self) -> list[Bounds]:
        """Sealed blocks that no group knows: those of the open group of an earlier run."""
        groups: list[Group] = [self.slices.open, *self.slices.closed]
        known = {first for group in groups for first in group.firsts.tolist()}
        return [each.bounds for each in self.heads() if each.bounds.first_offset not in known]


class Sealer:
    """The thread that seals what the index closes."""

    def __init__(self, archive: Archive, log_: Log) -> None:
        self._archive, self._log = archive, log_
        self._load: Load | None = None
        self._waiting: deque[Bounds] = deque()
        self._held: dict[int, Block] = {}  # the oldest of those that wait
        self._frames = Frames(FRAMES_BYTES)
        self._wake = threading.Condition()
        self._dropping: deque[tuple[Collection[Head], Collection[Head], Future[None]]] = deque()
        self._stopping = False
        self._unindexed = True
        archive.slices.on_damage = self._damaged_rows
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)

    def start(self, load: Load) -> None:
        """Begin; blocks submitted before are sealed too. `load` gives closed and sealed ones."""
        self._load = self.held_or(load)
        self._thread.start()

    def keep(self, batch: Batch) -> None:
        """Hear of a batch before it is applied; its frame need not be made again then."""
        self._frames.keep(batch)

    def submit(self, block: Block) -> None:
        """Seal a closed block, soon."""
        with self._wake:
            if len(self._waiting) < HELD:
                self._held[block.first_offset] = block
            self._waiting.append(block.bounds)
            self._wake.notify()

    def held_or(self, load: Load) -> Load:
        """How to read a closed block again where this one has it no more."""

        def found(bounds: Bounds) -> Block:
            return self._held.get(bounds.first_offset) or load(bounds)

        return found

    def drop(self, heads: Collection[Head], lost: Collection[Head]) -> Future[None]:
        """Delete blocks that the index has forgotten, in the sealing thread."""
        done: Future[None] = Future()
        with self._wake:
            self._dropping.append((heads, lost, done))
            self._wake.notify()
        return done

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
        self._index_all()
        while self._next():
            self._drop_all()
            self._index_all()
            try:
                self._seal()
            except ContextError as exc:  # a full disk: everything is still in the log
                log.warning("blocks not sealed", extra={"reason": exc.detail})
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping, RETRY_S)

    def _index_all(self) -> None:
        """Make the n-grams that are missing: of an earlier run's open group, of damaged ones."""
        if not self._unindexed:
            return
        self._unindexed = False
        self._archive.forget_damaged_rows()
        for bounds in self._archive.unindexed():
            if self._stopping:
                return
            try:
                self._archive.index(self._loaded(bounds))
            except ContextError as exc:  # it may be searched all the same, only not left out
                log.error("a sealed block without n-grams", extra={"reason": exc.detail})

    def _drop_all(self) -> None:
        while self._dropping:
            heads, lost, done = self._dropping.popleft()
            try:
                self._archive.drop(heads, lost)
                done.set_result(None)
            except OSError as exc:  # the next round finds what is left
                done.set_exception(exc)

    def _damaged_rows(self) -> None:
        self._unindexed = True
        with self._wake:
            self._wake.notify()

    def _next(self) -> bool:
        """Wait for work: a little longer for more, as one sync serves several blocks."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._stopping or self._waiting or self._unindexed or self._dropping
            )
            if not self._unindexed:
                self._wake.wait_for(
                    lambda: self._stopping or self._dropping or len(self._waiting) >= TOGETHER,
                    GATHER_S,
                )
            return not self._stopping

    def _seal(self) -> None:
        waiting = [self._waiting[i] for i in range(min(TOGETHER, len(self._waiting)))]
        if not waiting:
            return
        blocks = [self._loaded(bounds) for bounds in waiting]
        self._archive.seal([self._sealed(each) for each in blocks])
        for bounds in waiting:
            self._waiting.popleft()
            self._held.pop(bounds.first_offset, None)
        self._log.trim(blocks[-1].bounds.last_offset)

    def _sealed(self, block: Block) -> Sealed:
        bounds = block.bounds
        terms = self._log.terms(bounds.first_offset, bounds.last_offset)
        runs = tuple((offset - bounds.first_offset, term) for offset, term in terms)
        return Sealed(block, runs, self._frames.take(bounds))

    def _loaded(self, bounds: Bounds) -> Block:
        assert self._load, "the thread runs only once it has one"
        return self._load(bounds)
