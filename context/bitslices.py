"""N-gram bitmaps of many blocks turned over: for each bit one row that says which blocks have it.

Groups of 512 blocks are written once and then never changed; layout in docs/block-format.md. Rows
lie compressed, 64 together: most grams are in all blocks or in none, so rows take a quarter less
than bitmaps, 36 KB for a MiB of text. A search reads the few rows it needs, so that a closed group
keeps nothing in memory but a table of where its rows are. The open group holds bitmaps as they are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from context.compiled import compiled
from context.compression import compress
from context.literals import Formula
from context.ngrams import BITMAP_BYTES, BITS, positions
from context.sealed import DamagedBlock

MAGIC = b"CTXROW\r\n"
VERSION = 2
GROUP_BLOCKS = 512
_HEADER = struct.Struct("<8sHHI")
_CHUNK_ROWS = 64
_CHUNKS = BITS // _CHUNK_ROWS
_SLAB = BITMAP_BYTES // 12  # bytes of each bitmap turned over at once
_ROWS_KEPT = 4096  # per group, in memory: the grams that everyone asks for

Read = Callable[[int, int], bytes]  # (position, length) -> bytes, fewer at the end


class Plan:
    """What a query needs of a block, as rows: of every clause the rows of one of its literals."""

    def __init__(self, formula: Formula) -> None:
        self.folds = formula.folds
        clauses = [[positions(literal) for literal in need] for need in formula.needs]
        # A literal too short to have a row may be anywhere, so its clause excludes nothing.
        self.clauses = [clause for clause in clauses if all(clause)]


class Group(Protocol):
    """Some blocks, told by their first offsets."""

    @property
    def firsts(self) -> NDArray[np.int64]:
        """First offset of each block, (blocks,)."""

    def keep(self, plan: Plan) -> NDArray[np.bool_]:
        """Which blocks may match, (blocks,). Raises DamagedBlock."""


class OpenGroup:
    """Blocks in the order in which they came, until there are `size`; one thread adds."""

    def __init__(self, size: int = GROUP_BLOCKS) -> None:
        self.size = size
        self.count = 0
        self._firsts = np.zeros(size, dtype=np.int64)
        self._folds = np.zeros(size, dtype=np.bool_)
        self._bitmaps = np.zeros((size, BITMAP_BYTES), dtype=np.uint8)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """First offset of each block, (blocks,)."""
        return self._firsts[: self.count]

    def add(self, first: int, bitmap: NDArray[np.uint8], *, folds: bool) -> None:
        """Take in the block that begins at offset `first`; see `context.sealed.folds`."""
        i = self.count
        self._firsts[i], self._folds[i], self._bitmaps[i] = first, folds, bitmap
        self.count = i + 1  # readers see the block from here on

    def keep(self, plan: Plan) -> NDArray[np.bool_]:
        """Which blocks may match, (blocks,)."""
        bitmaps = self._bitmaps[: self.count]
        kept = np.ones(len(bitmaps), dtype=np.bool_)
        for clause in plan.clauses:
            found = self._folds[: len(kept)] & plan.folds
            for rows in clause:
                where = np.array(rows)
                bits = bitmaps[:, where >> 3] >> (where & 7).astype(np.uint8) & 1
                found |= bits.all(axis=1)
            kept &= found
        return kept

    def close(self) -> bytes:
        """The group as it is stored; lets other threads run meanwhile."""
        width = -(-self.count // 64) * 8
        slab = np.empty((_SLAB * 8, width), dtype=np.uint8)
        chunks: list[bytes] = []
        for at in range(0, BITMAP_BYTES, _SLAB):
            _turn(self._bitmaps, at, slab)
            chunks += [compress(rows.data) for rows in slab.reshape(-1, _CHUNK_ROWS * width)]
        folds = np.packbits(self._folds, bitorder="little")[:width]
        table = b"".join(
            (
                self.firsts.astype("<i8").tobytes(),
                folds.tobytes().ljust(width, b"\0"),
                np.cumsum([len(chunk) for chunk in chunks]).astype("<u4").tobytes(),
                np.array([zlib.crc32(chunk) for chunk in chunks], dtype="<u4").tobytes(),
            )
        )
        head = _HEADER.pack(MAGIC, VERSION, self.count, _HEADER.size + 4 + len(table))
        crc = zlib.crc32(table, zlib.crc32(head)).to_bytes(4, "little")
        return b"".join((head, crc, table, *chunks))


class ClosedGroup:
    """A stored group; for any number of threads."""

    def __init__(self, read: Read) -> None:
        """Read the table. Raises DamagedBlock."""
        self.damage: str | None = None  # why no row can be read any more
        self._read = read
        count, self._begin, table = _read_table(read)
        self._width = -(-count // 64) * 8
        self.firsts = np.frombuffer(table, dtype="<i8", count=count).astype(np.int64)
        at = 8 * count
        self._folds = int.from_bytes(table[at : at + self._width], "little")
        self._ends, self._crcs = np.frombuffer(table[at + self._width :], "<u4").reshape(2, -1)
        sizes = np.diff(self._ends.astype(np.int64), prepend=0)
        if sizes.min() < 0 or sizes.max() > 2 * _CHUNK_ROWS * self._width + 64:
            raise DamagedBlock("the table contradicts itself")
        self._rows: dict[int, int] = {}

    def keep(self, plan: Plan) -> NDArray[np.bool_]:
        """Which blocks may match, (blocks,). Raises DamagedBlock, then and ever after."""
        # Whole rows as one integer each: a thousand times cheaper to combine than small arrays.
        everything = kept = (1 << len(self.firsts)) - 1
        for clause in plan.clauses:
            found = self._folds if plan.folds else 0
            for rows in clause:
                found |= self._all(rows, kept)
            kept &= found
            if not kept:
                break
        if kept == everything:
            return np.ones(len(self.firsts), dtype=np.bool_)
        packed = np.frombuffer(kept.to_bytes(self._width, "little"), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little", count=len(self.firsts))
        return bits.astype(np.bool_)

    def _all(self, rows: Sequence[int], kept: int) -> int:
        for row in rows:
            known = self._rows.get(row)
            kept &= self._load(row) if known is None else known
            if not kept:
                break
        return kept

    def _load(self, row: int) -> int:
        if self.damage:
            raise DamagedBlock(self.damage)
        chunk, at = divmod(row, _CHUNK_ROWS)
        try:
            rows = self._chunk(chunk)
        except (DamagedBlock, OSError):
            try:  # once more: the disk may have failed that once
                rows = self._chunk(chunk)
            except (DamagedBlock, OSError) as exc:
                self.damage = str(exc)
                raise DamagedBlock(self.damage) from exc
        bits = int.from_bytes(rows[at * self._width : (at + 1) * self._width], "little")
        if len(self._rows) >= _ROWS_KEPT:
            self._rows = {}
        self._rows[row] = bits
        return bits

    def _chunk(self, i: int) -> bytes:
        first, end = int(self._ends[i - 1]) if i else 0, int(self._ends[i])
        stored = self._read(self._begin + first, end - first)
        if zlib.crc32(stored) != self._crcs[i]:
            raise DamagedBlock(f"rows {i * _CHUNK_ROWS} and on have another checksum")
        size = _CHUNK_ROWS * self._width
        try:
            if zstandard.frame_content_size(stored) == size:
                return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise DamagedBlock(f"rows {i * _CHUNK_ROWS} and on do not unpack: {exc}") from exc
        raise DamagedBlock(f"rows {i * _CHUNK_ROWS} and on do not unpack to {size} bytes")


class BitSlices:
    """All groups: which blocks may hold what a query needs. One thread changes, any thread asks."""

    def __init__(self, closed: Iterable[ClosedGroup] = (), size: int = GROUP_BLOCKS) -> None:
        self.closed = tuple(closed)
        self.open = OpenGroup(size)
        self.on_damage: Callable[[], None] = lambda: None  # called when a group proves damaged

    def settle(self, group: ClosedGroup) -> None:
        """Go on with an empty open group; `group` is the former one."""
        # In this order a reader may see the same blocks twice, but never misses them.
        self.closed = (*self.closed, group)
        self.open = OpenGroup(self.open.size)

    def forget(self, group: ClosedGroup) -> None:
        """Leave out a group that is damaged, or whose blocks are gone."""
        self.closed = tuple(each for each in self.closed if each is not group)

    def candidates(self, plan: Plan, firsts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the blocks may match, given by ascending first offsets, (blocks,).

        A block of no group may match, and so may all blocks of a group that proves to be damaged:
        its `damage` then says why.
        """
        kept = np.ones(len(firsts), dtype=np.bool_)
        if not plan.clauses or not len(firsts):
            return kept
        groups: tuple[Group, ...] = (self.open, *self.closed)
        for group in groups:
            known = group.firsts
            if not len(known) or known.min() > firsts[-1] or known.max() < firsts[0]:
                continue
            try:
                found = group.keep(plan)[: len(known)]  # one may have come meanwhile
            except DamagedBlock:
                self.on_damage()
                continue
            at = np.searchsorted(firsts, known)
            at[at == len(firsts)] = 0
            here = firsts[at] == known
            kept[at[here]] = found[here]
        return kept


def prepare() -> None:
    """Load the compiled loop, or compile it: do that before the first group closes."""
    with suppress(OSError):  # a full disk may refuse the compiled loop, which works all the same
        _turn(np.zeros((8, 1), dtype=np.uint8), 0, np.zeros((8, 1), dtype=np.uint8))


def _read_table(read: Read) -> tuple[int, int, bytes]:
    """Number of blocks, where the rows begin, and the table between header and rows."""
    head = read(0, _HEADER.size + 4)
    if len(head) < _HEADER.size + 4 or not head.startswith(MAGIC):
        raise DamagedBlock("the header does not begin a group")
    _, version, count, begin = _HEADER.unpack_from(head)
    if version != VERSION:
        raise DamagedBlock(f"the group has layout {version}; this program reads {VERSION}")
    length = 8 * count + -(-count // 64) * 8 + 8 * _CHUNKS
    if not count or begin != len(head) + length:
        raise DamagedBlock("the header contradicts itself")
    table = read(len(head), length)
    crc = zlib.crc32(table, zlib.crc32(head[: _HEADER.size]))
    if crc != int.from_bytes(head[_HEADER.size :], "little"):
        raise DamagedBlock("the checksum of the table is wrong")
    return count, begin, table


@compiled
def _turn(bitmaps: NDArray[np.uint8], at: int, rows: NDArray[np.uint8]) -> None:
    """Rows from bytes `at` and on of each bitmap: bit i of row 8 j + k is bit k of byte j of i.

    Eight by eight bits at once: Warren, Hacker's Delight, section 7-3. `bitmaps` holds a multiple
    of 8 rows, as many as `rows` has columns or fewer.
    """
    for g in range(rows.shape[1]):
        for j in range(rows.shape[0] // 8):
            x = np.uint64(0)
            for k in range(8):
                if 8 * g + k < bitmaps.shape[0]:
                    x |= np.uint64(bitmaps[8 * g + k, at + j]) << np.uint64(8 * k)
            t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
            x = x ^ t ^ (t << np.uint64(7))
            t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
            x = x ^ t ^ (t << np.uint64(14))
            t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
            x = x ^ t ^ (t << np.uint64(28))
            for k in range(8):
                rows[8 * j + k, g] = (x >> np.uint64(8 * k)) & np.uint64(255)
