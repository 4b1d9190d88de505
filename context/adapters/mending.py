"""Damaged blocks: made again from the log where that still has them, else set aside.

The log drops what is sealed, so it holds the newest blocks only: those sealed just before a crash,
and the newest batch. What neither has is lost: its bytes lie in `damaged/`, every reader hears of
the gap, and everything else goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from context.adapters.archive import Archive
from context.adapters.blocks_fs import Damage
from context.block import Block, Bounds
from context.cache import Load, load_from
from context.damage import LostBlock, unknown_head
from context.errors import ContextError, NotFound
from context.index import CLOSE_BYTES
from context.items import Batch
from context.ports import Log
from context.sealed import MAX_PLAIN_BYTES, DamagedBlock, Sealed, encode

log = logging.getLogger(__name__)
_READ_BYTES = 8 << 20  # of the log at a time


def recover(archive: Archive, log_: Log) -> None:
    """Deal with the damage that opening the archive has found; before an index is made of it."""
    files = archive.blocks
    for damage in (*files.damage, *files.torn):
        missing = _missing(archive, damage, log_.bounds())
        if missing:
            _recover(archive, log_, damage, *missing)
        elif damage in files.damage:
            log.warning("damage where nothing is missing", extra={"place": str(damage)})
            if damage.found.sure:
                files.mark(damage)
    files.cut()


def _recover(archive: Archive, log_: Log, damage: Damage, first: int, last: int) -> None:
    """Make the missing items again; lose those that the log does not have."""
    why, kept, begin = damage.found.why, "in place, for the next start", last + 1
    try:
        archive.forget_rows(first, last)  # the blocks may be cut otherwise than they were
        begin = _restore(archive, log_, first, last, CLOSE_BYTES)
        if damage.found.sure:
            if begin > first:
                kept = archive.blocks.set_aside_at(damage, first, begin - 1)
            else:
                archive.blocks.mark(damage)
    except (ContextError, OSError) as exc:  # a full disk, say: the next start tries again
        log.error("a damaged block stays where it is", extra={"reason": str(exc)})
    if begin > first:
        archive.lose(unknown_head(first, begin - 1), why, kept)
    else:
        _told(archive, first, last, why)


def _missing(archive: Archive, damage: Damage, in_log: tuple[int, int]) -> tuple[int, int] | None:
    """Offsets that lay in a damaged place and lie nowhere else; None where there are none."""
    heads = [head.bounds for head in (*archive.heads(), *archive.lost.values())]
    found, (oldest, newest) = damage.found, in_log
    last = max((each.last_offset for each in heads), default=-1)
    if found.head:
        known = {each.first_offset for each in heads}
        own = found.head.bounds
        hole = None if own.first_offset in known else (own.first_offset, own.last_offset)
    else:
        spans = sorted((each.first_offset, each.last_offset) for each in heads)
        behind = [(max(oldest, last + 1), newest)] if newest > last else []
        hole = _hole(spans + behind, damage.follows)
        if hole and hole[0] <= found.hint[0] <= found.hint[1] == hole[1]:
            hole = found.hint
    if hole and hole[1] > last and newest >= 0:  # the index takes from the log what is there
        hole = hole[0], min(hole[1], oldest - 1)
    return hole if hole and hole[0] <= hole[1] else None


def _hole(spans: Iterable[tuple[int, int]], after: int) -> tuple[int, int] | None:
    """The first offsets above `after` that are in none of the ascending spans, up to the next."""
    for first, last in spans:
        if first > after + 1:
            return after + 1, first - 1
        after = max(after, last)
    return None


def mend(archive: Archive, log_: Log, bounds: Bounds, why: str) -> Sealed:
    """The block that two reads found damaged, made again from the log.

    Raises LostBlock where the log does not have all of it; what it has is stored again then.
    """
    first, last = bounds.first_offset, bounds.last_offset
    with archive.mending:
        with suppress(DamagedBlock):  # another reader mended it meanwhile
            return archive.read(first)
        head = next((each for each in archive.heads() if each.bounds.first_offset == first), None)
        kept, begin = "in place, for the next start", last + 1
        try:
            begin = _restore(archive, log_, first, last, MAX_PLAIN_BYTES)
            if begin > first:
                kept = archive.blocks.set_aside(first, begin - 1)
        except (ContextError, OSError) as exc:
            log.error("a damaged block stays where it is", extra={"reason": str(exc)})
        if begin == first:
            _told(archive, first, last, why)
            return archive.read(first)
        if head is None or begin <= last:  # not all of the block, so not what its head tells
            head = unknown_head(first, begin - 1)
        archive.lose(head, why, kept)
    raise LostBlock("their block is damaged", bounds)


def _told(archive: Archive, first: int, last: int, why: str) -> None:
    fields = {"first": first, "last": last, "reason": why}
    log.warning("a damaged block was made again from the log", extra=fields)
    archive.on_damage()


def _restore(archive: Archive, log_: Log, first: int, last: int, close_bytes: int) -> int:
    """Seal again what the log has of a range; tells where that begins, `last + 1` if nowhere."""
    batches = [
        batch
        for batch in _read(log_, first, last)
        if batch.first_offset >= first and batch.last_offset <= last
    ]
    for group in _grouped(batches, close_bytes):
        begin, end = group[0].first_offset, group[-1].last_offset
        terms = tuple((offset - begin, term) for offset, term in log_.terms(begin, end))
        archive.blocks.put([encode(Sealed(Block.of(group), terms))])
    return batches[0].first_offset if batches else last + 1


def _read(log_: Log, first: int, last: int) -> Iterator[Batch]:
    after = first - 1
    while after < last and (found := log_.read(after, max_bytes=_READ_BYTES)):
        yield from found
        after = found[-1].last_offset


def _grouped(batches: Sequence[Batch], close_bytes: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if sum(len(each.text) for each in group) >= close_bytes:
            yield group
            group = []
    if group:
        yield group


def whole(archive: Archive, log_: Log, bounds: Bounds) -> Sealed:
    """A sealed block, mended where needed; raises LostBlock, UnreadableBlock, NotFound."""
    try:
        return archive.read(bounds.first_offset)
    except DamagedBlock as exc:
        return mend(archive, log_, bounds, exc.detail)


def loader(archive: Archive, log_: Log) -> Load:
    """How the index reads a closed block again: sealed, or where it is not yet from the log.

    The result raises LostBlock, UnreadableBlock.
    """
    from_log = load_from(log_)

    def sealed(bounds: Bounds) -> Block:
        return whole(archive, log_, bounds).block

    def load(bounds: Bounds) -> Block:
        try:
            try:
                return sealed(bounds)
            except NotFound:
                pass
            try:
                return from_log(bounds)
            except NotFound:  # it was sealed, and the log trimmed, between the two
                return _sealed_or_dropped(sealed, bounds)
        except LostBlock as exc:  # the index may know a larger block than what is lost of it
            raise LostBlock("their block is damaged", bounds) from exc

    return load


def _sealed_or_dropped(sealed: Load, bounds: Bounds) -> Block:
    try:
        return sealed(bounds)
    except NotFound as exc:  # a reader that began before retention let go of it
        raise LostBlock("retention has dropped them", bounds) from exc


def read_after(archive: Archive, log_: Log, after: int, *, max_bytes: int) -> list[Batch]:
    """Batches holding items after an offset, in order, from wherever they lie; [] at the end.

    Where history is missing they begin later: the first one's offset tells.
    """
    found = log_.read(after, max_bytes=max_bytes)
    if found and found[0].first_offset <= after + 1:
        return found
    for head in archive.heads():
        if head.bounds.last_offset > after:
            with suppress(LostBlock, NotFound):  # retention may take it meanwhile
                sealed = whole(archive, log_, head.bounds)
                return [batch for batch in sealed.batches() if batch.last_offset > after]
    return found
