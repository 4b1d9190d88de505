"""What a log promises its producers and subscribers, proved from what they saw. Pure.

A history is: what was sent (a batch per idempotency key), what was acknowledged, what is in the log
at the end, and what each subscriber was given. `violations` lists every broken promise:

* offsets of the log are dense from 0;
* an acknowledged batch is there once, in one piece, at the offsets of its acknowledgement;
* a batch without an acknowledgement is there once and in one piece, or not at all;
* nothing else is there;
* a repeat of an idempotency key is given the first answer again;
* terms never fall along the log, no two nodes lead in one term, and nothing is appended under a
  term once a later one has begun;
* every copy of the log is the same;
* a subscriber is given every item of the log once, in order, with the log's content, or is told
  exactly which are missing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SHOWN = 20  # violations of one kind; a broken node may break a promise for every item


@dataclass(frozen=True, slots=True)
class Ack:
    """Answer to one ingest: where the node says that the batch is."""

    key: str
    cursor: str
    first_offset: int
    last_offset: int
    term: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """An item as the log or a subscription gave it."""

    offset: int
    content: Hashable


@dataclass(frozen=True, slots=True)
class Missed:
    """A `gap`: the subscriber is told that these offsets are gone."""

    first: int
    last: int


@dataclass
class History:
    """All that was sent and seen. Every item sent must be different from every other one.

    `sent`: contents of each batch by idempotency key. `log`: by ascending offset, as read back.
    `subscribers`: what each one was given, from offset 0 on, in the order of arrival. `copies`: the
    log as other nodes have it. `reigns`: a term and who said that it leads in it. `begun`: the term
    that had begun, for certain, before a batch was appended.
    """

    sent: dict[str, Sequence[Hashable]] = field(default_factory=dict)
    acks: list[Ack] = field(default_factory=list)
    log: list[Seen] = field(default_factory=list)
    subscribers: dict[str, list[Seen | Missed]] = field(default_factory=dict)
    copies: dict[str, list[Seen]] = field(default_factory=dict)
    reigns: set[tuple[int, str]] = field(default_factory=set)
    begun: dict[str, int] = field(default_factory=dict)


def violations(history: History) -> list[str]:
    """Every broken promise, in words; empty where all were kept.

    Raises ValueError where two items sent are equal: once and twice could not be told apart.
    """
    owners = _owners(history.sent)
    places = _places(history.log, owners)
    return [
        *_few(_unknown_or_twice(history.log, owners, places)),
        *_few(_holes(history.log)),
        *_few(_answers(history)),
        *_few(_batches(history, places)),
        *_few(_reigns(history)),
        *_few(_copies(history)),
        *(
            f"{name}: {text}"
            for name, given in history.subscribers.items()
            for text in _few(_delivery(given, history.log))
        ),
    ]


Owner = tuple[str, int]  # key, index in the batch


def _owners(sent: Mapping[str, Sequence[Hashable]]) -> dict[Hashable, Owner]:
    owners: dict[Hashable, Owner] = {}
    for key, contents in sent.items():
        for index, content in enumerate(contents):
            if content in owners:
                raise ValueError(f"{key}[{index}] equals {owners[content]}: {content!r}")
            owners[content] = (key, index)
    return owners


def _places(log: Iterable[Seen], owners: Mapping[Hashable, Owner]) -> dict[Owner, list[int]]:
    """Offsets at which each item sent is found."""
    places: dict[Owner, list[int]] = {}
    for item in log:
        if owner := owners.get(item.content):
            places.setdefault(owner, []).append(item.offset)
    return places


def _unknown_or_twice(
    log: Iterable[Seen], owners: Mapping[Hashable, Owner], places: Mapping[Owner, Sequence[int]]
) -> Iterator[str]:
    for item in log:
        if item.content not in owners:
            yield f"offset {item.offset} holds what nobody sent: {item.content!r}"
    for (key, index), offsets in places.items():
        if len(offsets) > 1:
            yield f"{key}[{index}] is stored {len(offsets)} times, at offsets {offsets}"


def _holes(log: Iterable[Seen]) -> Iterator[str]:
    wanted = 0
    for item in log:
        if item.offset != wanted:
            yield f"offset {wanted} is missing in the log: {item.offset} follows {wanted - 1}"
        wanted = item.offset + 1


def _answers(history: History) -> Iterator[str]:
    first: dict[str, Ack] = {}
    epochs: dict[str, str] = {}
    for ack in history.acks:
        before = first.setdefault(ack.key, ack)
        if before != ack:
            yield f"{ack.key} was answered {before} first and {ack} later"
        epoch, _, offset = ack.cursor.rpartition(":")
        if offset != str(ack.last_offset):
            yield f"{ack.key}: cursor {ack.cursor} is not offset {ack.last_offset}"
        if epochs.setdefault(epoch, ack.key) == ack.key and len(epochs) > 1:
            yield f"{ack.key}: the epoch changed to {epoch} from {next(iter(epochs))}"
        if ack.key not in history.sent:
            yield f"{ack} acknowledges what nobody sent"


def _reigns(history: History) -> Iterator[str]:
    leaders: dict[int, str] = {}
    for term, node in sorted(history.reigns):
        if leaders.setdefault(term, node) != node:
            yield f"both {leaders[term]} and {node} lead in term {term}"
    for ack in history.acks:
        if ack.term < (begun := history.begun.get(ack.key, 0)):
            yield f"{ack.key} is stored under term {ack.term} after {begun} has begun"
    newest = 0
    for ack in sorted(history.acks, key=lambda ack: ack.first_offset):
        if ack.term < newest:
            yield f"{ack.key}: term {ack.term} at offset {ack.first_offset}, behind term {newest}"
        newest = max(newest, ack.term)


def _copies(history: History) -> Iterator[str]:
    for name, copy in history.copies.items():
        if len(copy) != len(history.log):
            yield f"{name} has {len(copy)} items, others {len(history.log)}"
        for own, other in zip(copy, history.log, strict=False):
            if own != other:
                yield f"{name} has {own} where others have {other}"


def _batches(history: History, places: Mapping[Owner, Sequence[int]]) -> Iterator[str]:
    acks = {ack.key: ack for ack in reversed(history.acks)}
    for key, contents in history.sent.items():
        found = [places.get((key, index), ()) for index in range(len(contents))]
        if ack := acks.get(key):
            count = ack.last_offset - ack.first_offset + 1
            if count != len(contents):
                yield f"{key}: {count} items acknowledged, {len(contents)} sent"
            yield from _in_one_piece(key, found, ack.first_offset, "acknowledged")
        elif any(found):  # nobody was told what became of it: all or nothing
            start = next(min(offsets) - i for i, offsets in enumerate(found) if offsets)
            yield from _in_one_piece(key, found, start, "not acknowledged, stored")


def _in_one_piece(key: str, found: Sequence[Sequence[int]], first: int, word: str) -> Iterator[str]:
    for index, offsets in enumerate(found):
        if not offsets:
            yield f"{key}[{index}] is lost: {word} at offset {first + index}"
        elif offsets[0] != first + index:
            yield f"{key}[{index}] is at offset {offsets[0]}: {word} at {first + index}"


def _delivery(given: Iterable[Seen | Missed], log: Sequence[Seen]) -> Iterator[str]:
    contents = {item.offset: item.content for item in log}
    wanted = 0
    for one in given:
        first = one.offset if isinstance(one, Seen) else one.first
        if first > wanted:
            yield f"offsets {wanted} to {first - 1} were passed over without a word"
        elif first < wanted:
            yield f"offset {first} came again or late: {wanted} was next"
        if isinstance(one, Missed):
            if one.last < one.first:
                yield f"the gap from {one.first} to {one.last} names nothing"
            wanted = max(wanted, one.last + 1)
            continue
        if one.offset not in contents:
            yield f"offset {one.offset} was delivered but is not in the log: {one.content!r}"
        elif contents[one.offset] != one.content:
            yield f"offset {one.offset} was delivered as {one.content!r}, the log has another item"
        wanted = max(wanted, one.offset + 1)
    newest = log[-1].offset if log else -1
    if wanted <= newest:
        yield f"offsets {wanted} to {newest} never came"


def _few(texts: Iterable[str]) -> Iterator[str]:
    more = 0
    for number, text in enumerate(texts):
        if number < SHOWN:
            yield text
        else:
            more += 1
    if more:
        yield f"... and {more} more of this kind"
