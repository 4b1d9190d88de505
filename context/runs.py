"""Items on their way to subscribers, many written at once: each costs little besides its bytes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from operator import itemgetter

from context.block import line_ends
from context.items import OPENING, Batch, encode_item

_HEAD_BYTES = 80  # about as much stands before each line
_FEW = 8  # of so many lines at most one: looked up each, instead of taking all apart
_body = itemgetter(slice(len(OPENING), -1))  # of a line with its newline
_LAST_DIGITS = [b"%03d" % n for n in range(1000)]


@dataclass(frozen=True, slots=True)
class Run:
    """Items of one batch, all or some, in order."""

    epoch: str
    ingested_at: float  # unix seconds
    offsets: Sequence[int]
    bodies: Sequence[bytes]  # (items,) each line without its `OPENING`
    nbytes: int  # of all bodies

    @classmethod
    def of(cls, epoch: str, batch: Batch, chosen: Sequence[int] | None = None) -> Run:
        """The batch's chosen lines; all without."""
        first, at = batch.first_offset, batch.ingested_at
        if chosen is None:
            nbytes = len(batch.text) - batch.count * (len(OPENING) + 1)
            offsets = range(first, first + batch.count)
            return cls(epoch, at, offsets, _bodies(batch.text), nbytes)
        bodies = _some_bodies(batch.text, chosen) if len(chosen) else ()
        return cls.made(epoch, at, [first + i for i in chosen], bodies)

    @classmethod
    def made(
        cls, epoch: str, ingested_at: float, offsets: Sequence[int], bodies: Sequence[bytes]
    ) -> Run:
        """The run of these bodies."""
        return cls(epoch, ingested_at, offsets, bodies, sum(map(len, bodies)))

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, first: int, last: int) -> Run:
        """Its items first..last-1."""
        some = slice(first, last)
        return Run.made(self.epoch, self.ingested_at, self.offsets[some], self.bodies[some])

    def after(self, offset: int) -> Run:
        """Its items behind an offset."""
        at = bisect_right(self.offsets, offset)
        return self.part(at, len(self)) if at else self

    def until(self, offset: int) -> Run:
        """Its items up to an offset."""
        at = bisect_right(self.offsets, offset)
        return self.part(0, at) if at < len(self) else self

    def items(self) -> Iterator[tuple[int, bytes]]:
        """Offset and full JSON of each, as `encode_item` makes it."""
        for offset, body in zip(self.offsets, self.bodies, strict=True):
            yield offset, encode_item(self.epoch, offset, self.ingested_at, OPENING + body)

    def written(self, before: Sequence[bytes], behind: bytes) -> bytes:
        """All in one text: for each `before`, joined by its offset, its JSON, and `behind`."""
        *begin, before_json = before
        *numbered, stamped = (
            *begin,
            b'%b{"id":"%b:' % (before_json, self.epoch.encode()),
            b'","offset":',
            b',"ingested_at":%b,%b' % (repr(self.ingested_at).encode(), OPENING[1:]),
        )
        head, numbered[0] = numbered[0], behind + numbered[0]  # one part between two items
        parts, at = list[bytes](), 0
        for leading, last in _digits(self.offsets):
            row = [part for each in numbered for part in (each + leading, b"")] + [stamped, b""]
            cells, width, count = row * len(last), len(row), len(last)
            for column in range(1, width - 1, 2):
                cells[column::width] = last
            cells[width - 1 :: width] = self.bodies[at : at + count]
            if not at:
                cells[0] = head + leading
            parts = parts + cells if at else cells
            at += count
        parts.append(behind if parts else b"")
        return b"".join(parts)


def _bodies(text: bytes) -> list[bytes]:
    """All lines, each without its opening. Reading lines is twice as quick as splitting."""
    return list(map(_body, BytesIO(text)))


def _some_bodies(text: bytes, chosen: Sequence[int]) -> list[bytes]:
    """Some lines, each without its opening."""
    ends = line_ends(text)
    if len(chosen) > len(ends) // _FEW:
        bodies = _bodies(text)
        return [bodies[i] for i in chosen]
    begin = len(OPENING)
    return [text[(int(ends[i - 1]) + 1 if i else 0) + begin : ends[i]] for i in chosen]


def _digits(offsets: Sequence[int]) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """Ascending offsets in runs as they are written: the digits that a run shares, and the rest.

    The last three digits are at hand, so no text is made for most of them.
    """
    at = 0
    while at < len(offsets):
        thousands = offsets[at] // 1000
        first = 1000 * thousands
        end = bisect_left(offsets, first + 1000, at)
        some = offsets[at:end]
        if not thousands:
            yield b"", [b"%d" % offset for offset in some]
        elif isinstance(some, range):
            yield b"%d" % thousands, _LAST_DIGITS[some.start - first : some.stop - first]
        else:
            yield b"%d" % thousands, [_LAST_DIGITS[offset - first] for offset in some]
        at = end


def runs_of(epoch: str, found: Iterable[tuple[int, float, bytes]]) -> list[Run]:
    """Items, each (offset, ingested_at, line without its `OPENING`), as few runs."""
    runs = []
    for at, group in groupby(found, key=lambda each: each[1]):
        offsets, _, bodies = zip(*group, strict=True)
        runs.append(Run.made(epoch, at, offsets, bodies))
    return runs


def pieces(runs: Iterable[Run], size: int) -> Iterator[list[Run]]:
    """The items in pieces of at most `size` bytes, unless one item alone is larger."""
    piece: list[Run] = []
    room = size
    for run in runs:
        for part in _parts(run, size):
            if piece and _size(part) > room:
                yield piece
                piece, room = [], size
            piece.append(part)
            room -= _size(part)
    if piece:
        yield piece


def _parts(run: Run, size: int) -> Iterator[Run]:
    """The run as it is where it is small enough, else in parts of about as many items each."""
    count, over = len(run), -(-_size(run) // size)
    if over <= 1 or count <= 1:
        yield run
        return
    step = -(-count // over)
    for at in range(0, count, step):
        yield from _parts(run.part(at, at + step), size)


def _size(run: Run) -> int:
    """About as many bytes as it is written in."""
    return run.nbytes + _HEAD_BYTES * len(run)
