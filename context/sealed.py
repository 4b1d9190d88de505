"""A block as bytes that stay: versioned, compressed, checksummed. Layout: docs/block-format.md.

Every byte is covered by a CRC-32, which finds any damage within 4 neighbouring bytes for certain
and all other damage with probability 1 - 2^-32, at 6 GB/s; every language's library has it. Against
tampering it does nothing, and need not: who can write these files can write new ones.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import zstandard

from context.block import Block, Bounds, Columns, line_ends
from context.column import Column, names_kept
from context.compression import compress
from context.errors import ContextError
from context.items import Batch
from context.literals import FOLD_INTO_ASCII
from context.packed import BadColumns, Unpacker, pack

MAGIC = b"CTXBLK\r\n"  # a transfer that changes line ends shows at once, as in PNG
VERSION = 1
SEVERAL_FRAMES = 2  # the same, but the text may be several zstd frames
HEADER = struct.Struct("<8sHHIqqdd9II")
MAX_PLAIN_BYTES = 64 << 20  # of one section: four times the largest body that a node accepts
_CHECKED = HEADER.size - 4  # bytes before the header's own checksum
_FOLDS = 1


class DamagedBlock(ContextError):
    """Bytes are not what was written; the text says which, and what is wrong."""

    code = "damaged_bytes"


@dataclass(frozen=True, slots=True)
class Head:
    """What a sealed block says of itself in its first bytes."""

    bounds: Bounds
    length: int  # of the whole sealed block, bytes
    folds: bool  # see `folds`
    types: dict[str, int]  # number of items of each
    sources: dict[str, int]


Terms = tuple[tuple[int, int], ...]  # (index of the first item, term)


class Sealed:
    """A block as it was sealed, and which terms wrote its items."""

    __slots__ = ("_terms", "block", "frames")

    def __init__(
        self, block: Block, terms: Terms | Callable[[], Terms], frames: Sequence[bytes] = ()
    ) -> None:
        """`terms` may be read when they are first asked for.

        `frames` are zstd frames, each with its content size, that together unpack to the text.
        """
        self.block, self._terms, self.frames = block, terms, frames

    @property
    def terms(self) -> Terms:
        """For each run of items of one term: index of the first, and the term."""
        if callable(self._terms):
            self._terms = self._terms()
        return self._terms

    def batches(self) -> list[Batch]:
        """The items as batches: one for each run of equal `ingested_at` and term."""
        block = self.block
        starts = sorted({i for i, _ in (*block.columns.runs, *self.terms)})
        found = []
        for first, behind in zip(starts, [*starts[1:], block.count], strict=True):
            term = self.terms[bisect_right(self.terms, first, key=lambda run: run[0]) - 1][1]
            text = block.text[block.start(first) : block.start(behind)]
            offset, at = block.first_offset + first, block.ingested_at(first)
            found.append(Batch(offset, behind - first, at, term, text))
        return found


def folds(text: bytes) -> bool:
    """Whether a letter outside ASCII equals an ASCII letter when case is ignored.

    Those are the Kelvin sign (k) and the long s (s) alone: Unicode, CaseFolding.txt, status C.
    """
    return not text.isascii() and any(letter in text for letter in FOLD_INTO_ASCII)


def encode(sealed: Sealed) -> bytes:
    """The bytes of a sealed block."""
    block, bounds, heads = sealed.block, sealed.block.bounds, sealed.block.columns.heads
    names = _Names(_counts(heads.types), _counts(heads.sources), list(heads.symbols.values))
    packed = pack(heads, block.columns.runs, sealed.terms)
    plain = msgspec.json.encode(names), packed, block.text
    text = b"".join(sealed.frames) if sealed.frames else compress(block.text)
    stored = [compress(plain[0]), compress(plain[1]), text]
    table = [
        number
        for one, other in zip(stored, plain, strict=True)
        for number in (len(one), len(other), zlib.crc32(one))
    ]
    head = HEADER.pack(
        MAGIC,
        SEVERAL_FRAMES if len(sealed.frames) > 1 else VERSION,
        _FOLDS * folds(block.text),
        HEADER.size + sum(map(len, stored)),
        bounds.first_offset,
        bounds.last_offset,
        bounds.min_time,
        bounds.max_time,
        *table,
        0,
    )[:_CHECKED]
    return b"".join((head, zlib.crc32(head).to_bytes(4, "little"), *stored))


def head_length(buffer: bytes) -> int:
    """How many bytes `read_head` needs, from the first `HEADER.size`. Raises DamagedBlock."""
    return HEADER.size + _read_header(buffer).sections[0].stored


def read_head(buffer: bytes) -> Head:
    """The head of the block that begins here; the rest may be missing. Raises DamagedBlock."""
    header = _read_header(buffer)
    names = header.names(buffer)
    return Head(header.bounds(names), header.length, header.folds, names.types, names.sources)


def verify(buffer: bytes) -> None:
    """Compare all checksums without unpacking anything. Raises DamagedBlock."""
    header = _read_header(buffer)
    for section in header.sections:
        section.check(buffer)
    if len(buffer) != header.length:
        raise DamagedBlock(f"{len(buffer)} bytes instead of {header.length}")


def decode(buffer: bytes) -> Sealed:
    """What was sealed; its columns are read when they are first asked for.

    Raises
    ------
    DamagedBlock
        A byte differs from what was written, or some are missing or too many. Nothing is unpacked
        before its checksum and size are known to be right. Bytes that have the right checksums but
        never were a block may raise it only when the columns are read.
    """
    verify(buffer)
    header = _read_header(buffer)
    names, count = header.names(buffer), header.last - header.first + 1
    packed, text = header.sections[1].unpack(buffer), header.sections[2].unpack(buffer)

    def read() -> tuple[Columns, Terms]:
        return _columns(text, packed, names, count)

    return Sealed(Block(header.bounds(names), text, lambda: read()[0]), lambda: read()[1])


def _columns(text: bytes, packed: bytes, names: _Names, count: int) -> tuple[Columns, Terms]:
    ends = line_ends(text)
    if len(ends) != count or not text.endswith(b"\n"):
        raise DamagedBlock(f"{len(ends)} lines instead of {count}")
    columns = Unpacker(packed, count)
    try:
        heads = columns.heads(list(names.types), list(names.sources), names.symbols)
        runs = tuple(columns.runs("<f8"))
        terms = tuple((i, int(term)) for i, term in columns.runs("<u8"))
        columns.finish()
    except BadColumns as exc:
        raise DamagedBlock(f"the columns do not fit: {exc}") from exc
    return Columns(ends, heads, runs), terms


class _Names(msgspec.Struct, frozen=True):
    """Texts of the columns in the order of their codes; types and sources with their counts."""

    types: dict[str, int]
    sources: dict[str, int]
    symbols: list[str]


class _Section(NamedTuple):
    name: str
    at: int
    stored: int  # bytes
    plain: int  # bytes once unpacked
    crc: int
    several: bool = False  # whether it may be several frames

    def check(self, buffer: bytes) -> memoryview:
        found = memoryview(buffer)[self.at : self.at + self.stored]
        if len(found) < self.stored:
            raise DamagedBlock(f"the {self.name} end after {len(found)} of {self.stored} bytes")
        if zlib.crc32(found) != self.crc:
            raise DamagedBlock(f"the checksum of the {self.name} is wrong")
        return found

    def unpack(self, buffer: bytes) -> bytes:
        found = self.check(buffer)
        try:
            size = zstandard.frame_content_size(found)  # what zstd would allocate
            if self.several and 0 <= size < self.plain <= MAX_PLAIN_BYTES:
                return self._joined(found)
            if size != self.plain or size > MAX_PLAIN_BYTES:
                raise DamagedBlock(f"the {self.name} unpack to {size} bytes, not {self.plain}")
            return zstandard.ZstdDecompressor().decompress(found, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise DamagedBlock(f"the {self.name} do not unpack: {exc}") from exc

    def _joined(self, frames: memoryview) -> bytes:
        reader = zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True)
        joined = reader.read(self.plain)
        if len(joined) != self.plain or reader.read(1):
            raise DamagedBlock(f"the {self.name} do not unpack to {self.plain} bytes")
        return joined


class _Header(NamedTuple):
    length: int
    folds: bool
    first: int
    last: int
    min_time: float
    max_time: float
    sections: tuple[_Section, _Section, _Section]  # names, columns, text

    def names(self, buffer: bytes) -> _Names:
        try:
            return msgspec.json.decode(self.sections[0].unpack(buffer), type=_Names)
        except msgspec.DecodeError as exc:
            raise DamagedBlock(f"the names are not readable: {exc}") from exc

    def bounds(self, names: _Names) -> Bounds:
        sets = (names_kept(names.types), names_kept(names.sources), names_kept(names.symbols))
        times = self.min_time, self.max_time
        return Bounds(self.first, self.last, *times, *sets, self.sections[2].plain)


def _read_header(buffer: bytes) -> _Header:
    if len(buffer) < HEADER.size:
        raise DamagedBlock(f"the header ends after {len(buffer)} of {HEADER.size} bytes")
    magic, version, flags, length, first, last, low, high, *table = HEADER.unpack_from(buffer)
    if magic != MAGIC:
        raise DamagedBlock("the header does not begin a sealed block")
    if zlib.crc32(memoryview(buffer)[:_CHECKED]) != table[-1]:
        raise DamagedBlock("the checksum of the header is wrong")
    if version not in (VERSION, SEVERAL_FRAMES):
        raise DamagedBlock(
            f"the block has layout {version}; this program reads {VERSION} and {SEVERAL_FRAMES}"
        )
    names = _Section("names", HEADER.size, *table[:3])
    columns = _Section("columns", names.at + names.stored, *table[3:6])
    text = _Section("text", columns.at + columns.stored, *table[6:9])
    sections = names, columns, text._replace(several=version == SEVERAL_FRAMES)
    if max(each.stored for each in sections) > MAX_PLAIN_BYTES:
        raise DamagedBlock("a section is larger than any block")
    if length != text.at + text.stored or not 0 <= first <= last < first + text.plain:
        raise DamagedBlock("the header contradicts itself")
    return _Header(length, flags == _FOLDS, first, last, low, high, sections)


def _counts(column: Column) -> dict[str, int]:
    counts = np.bincount(column.codes, minlength=len(column.values)).tolist()
    return dict(zip(column.values, counts, strict=True))


__all__ = ["HEADER", "MAGIC", "DamagedBlock", "Head", "Sealed", "decode", "encode", "folds"]
__all__ += ["head_length", "read_head", "verify"]
