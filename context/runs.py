"""Items on their way to subscribers, many written at once: each costs little besides its bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, groupby, repeat

from context.items import Batch, encode_item

_HEAD_BYTES = 80  # about as much stands before each line


@dataclass(frozen=True, slots=True)
class Run:
    """Items of one batch, all or some, in order."""

    epoch: str
    ingested_at: float  # unix seconds
    offsets: Sequence[int]
    bodies: Sequence[bytes]  # (items,) each line without its opening brace

    @classmethod
    def of(cls, epoch: str, batch: Batch, chosen: Sequence[int] | None = None) -> Run:
        """The batch's chosen lines; all without."""
        first, at = batch.first_offset, batch.ingested_at
        if chosen is not None and not len(chosen):
            return cls(epoch, at, (), ())
        bodies = batch.text[1:-1].split(b"\n{")
        if chosen is None:
            return cls(epoch, at, range(first, first + batch.count), bodies)
        return cls(epoch, at, [first + i for i in chosen], [bodies[i] for i in chosen])

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of the lines."""
        return sum(map(len, self.bodies))

    def part(self, first: int, last: int) -> Run:
        """Its items first..last-1."""
        return replace(self, offsets=self.offsets[first:last], bodies=self.bodies[first:last])

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
            yield offset, encode_item(self.epoch, offset, self.ingested_at, b"{" + body)

    def written(self, before: Sequence[bytes], behind: bytes) -> bytes:
        """All in one text: for each `before`, joined by its offset, its JSON, and `behind`."""
        *begin, last = before
        fixed = (
            *begin,
            b'%b{"id":"%b:' % (last, self.epoch.encode()),
            b'","offset":',
            b',"ingested_at":%b,' % repr(self.ingested_at).encode(),
        )
        numbers = [b"%d" % offset for offset in self.offsets]
        columns: list[Iterable[bytes]] = [repeat(fixed[0])]
        for each in fixed[1:]:
            columns += (numbers, repeat(each))
        return b"".join(chain.from_iterable(zip(*columns, self.bodies, repeat(behind))))


def runs_of(epoch: str, found: Iterable[tuple[int, float, bytes]]) -> list[Run]:
    """Items, each (offset, ingested_at, line without its opening brace), as few runs."""
    runs = []
    for at, group in groupby(found, key=lambda each: each[1]):
        offsets, _, bodies = zip(*group, strict=True)
        runs.append(Run(epoch, at, offsets, bodies))
    return runs


def pieces(runs: Iterable[Run], size: int) -> Iterator[list[Run]]:
    """The items in pieces of at most `size` bytes, unless one item alone is larger."""
    piece: list[Run] = []
    room = size
    for run in runs:
        ends = [0, *accumulate(map(len, run.bodies))]
        at, count = 0, len(run)
        while at < count:
            most = room + ends[at] + _HEAD_BYTES * at
            fits = bisect_right(range(at, count), most, key=partial(_behind, ends))
            fits = fits if fits or piece else 1
            if fits:
                piece.append(run.part(at, at + fits) if fits < count else run)
                room -= ends[at + fits] - ends[at] + _HEAD_BYTES * fits
                at += fits
            if at < count:
                yield piece
                piece, room = [], size
    if piece:
        yield piece


def _behind(ends: Sequence[int], i: int) -> int:
    """Bytes up to the end of item i."""
    return ends[i + 1] + _HEAD_BYTES * (i + 1)
