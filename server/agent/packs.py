"""Pack the best context for a model, and keep what was packed."""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING

import msgspec

from context.block import Block
from context.choosing import Candidate
from context.filter import Filter
from context.items import encode_item
from context.packing import Packed, PackRequest, pack
from context.query import Selection, compile_matcher
from context.scan import Scanned, descend
from context.snapshot import Snapshot
from context.tensors import TensorItem
from context.tokens import NAME, estimate

if TYPE_CHECKING:
    from server.agent.node import Node

MOST_LOOKED_AT = 20_000  # candidates: twice the largest limit, so that left_out is told
MOST_RANKED = 2_000  # of each way to be relevant: the newest, those with a symbol, with a word...
MOST_WORDS, MOST_HASHES = 8, 8
DEADLINE_S = 2.0
KEPT = 10_000  # packed contexts; older ones are dropped
PRUNE_EVERY = 100

_decode_tensor = msgspec.json.Decoder(TensorItem).decode


def pack_newest(
    node: Node,
    asked: PackRequest,
    *,
    count: Callable[[str], int] | None = None,
    snapshot: Snapshot | None = None,
) -> Packed:
    """Choose, render and store (in a scan thread); `context_id` finds the same bytes again.

    `count` counts tokens where a rough number will do. `snapshot` is now where it is None.
    """
    snapshot = snapshot or node.snapshot()
    count_tokens, name = (count, "rough") if count else _tokenizer(node, asked.model)
    hashes: list[str] = []
    if asked.rank == "relevant":
        hashes = _meant(snapshot, asked.query)
        candidates = _relevant(node.log.epoch, snapshot, asked, hashes)
    else:
        candidates = _candidates(node.log.epoch, snapshot, asked)
    as_of = node.cursor(snapshot.newest)
    packed = pack(candidates, asked, count_tokens, name, as_of, hashes=hashes)
    node.state.put("pack", packed.context_id, packed.body, now=time.time())
    node.packs += 1
    if node.packs % PRUNE_EVERY == 0:
        node.state.prune("pack", keep_newest=KEPT)
    return packed


def _tokenizer(node: Node, model: str | None) -> tuple[Callable[[str], int], str]:
    """The model's own tokenizer where one is configured, else the estimate, and its name."""
    own = node.tokenizers.get(model or "")
    return (own, f"tokenizer of {model}") if own else (estimate, NAME)


def _candidates(epoch: str, snapshot: Snapshot, asked: PackRequest) -> Iterator[Candidate]:
    """Items that match types, symbols and query, newest first."""
    types = frozenset(asked.context_types) if asked.context_types else None
    matcher = compile_matcher(asked.query, regex=False, ignore_case=False) if asked.query else None
    symbols = sorted(set(asked.symbols)) if asked.symbols else [None]
    wishes = [Selection(Filter(types=types, symbol=symbol), matcher) for symbol in symbols]
    return _Merged([_Walk(epoch, snapshot, wish) for wish in wishes])


def _relevant(
    epoch: str, snapshot: Snapshot, asked: PackRequest, hashes: list[str]
) -> Iterator[Candidate]:
    """Newest first: the newest items of the types, and the newest with each symbol, word, hash."""
    types = frozenset(asked.context_types) if asked.context_types else None
    words = sorted(set(re.findall(r"\w+", (asked.query or "").lower())), key=len)[-MOST_WORDS:]
    wishes = [Selection(Filter(types=types), None)]
    wishes += [Selection(Filter(types=types, symbol=each), None) for each in asked.symbols or ()]
    for text in (*words, *hashes):
        matcher = compile_matcher(text, regex=False, ignore_case=True)
        wishes.append(Selection(Filter(types=types), matcher))
    walks = [islice(_Walk(epoch, snapshot, wish), MOST_RANKED) for wish in wishes]
    merged = heapq.merge(*walks, key=lambda found: -found[0])
    once = (next(same) for _, same in groupby(merged, key=lambda found: found[0]))
    return islice(once, MOST_LOOKED_AT)


def _meant(snapshot: Snapshot, query: str | None) -> list[str]:
    """Hashes of the newest calculations whose meaning has all words of the query."""
    words = re.findall(r"\w+", (query or "").lower())
    if not words:
        return []
    longest = compile_matcher(max(words, key=len), regex=False, ignore_case=True)
    wish = Selection(Filter(types=frozenset({"tensor_math"})), longest)
    found: dict[str, None] = {}
    for _, _, line in islice(_Walk("", snapshot, wish), MOST_RANKED):
        data = _decode_tensor(line).data
        meaning = (data.context_meaning or "").lower()
        if data.hash_value and all(word in meaning for word in words):
            found[data.hash_value] = None
            if len(found) == MOST_HASHES:
                break
    return list(found)


class _Walk:
    """What passes, newest first; what is left when there is enough is counted, not made."""

    def __init__(self, epoch: str, snapshot: Snapshot, wish: Selection) -> None:
        self._epoch, self._deadline = epoch, time.monotonic() + DEADLINE_S
        self._steps = descend(snapshot, wish, snapshot.newest + 1, Scanned(), clock=time.monotonic)
        self._hits: Iterator[tuple[Block, int]] = iter(())
        self._left = 0  # of the step at hand
        self.given = 0

    def __iter__(self) -> _Walk:
        return self

    def __next__(self) -> Candidate:
        while not self._left:
            if time.monotonic() > self._deadline:
                raise StopIteration
            step = next(self._steps)
            self._hits, self._left = step.hits(), len(step.found) if step.block else 0
        block, i = next(self._hits)
        self._left -= 1
        self.given += 1
        line, offset = block.line(i), block.first_offset + i
        return offset, encode_item(self._epoch, offset, block.ingested_at(i), line), line

    def rest(self, most: int) -> int:
        """How many more there are, stopping soon after `most`."""
        count, self._left = self._left, 0
        for step in self._steps:
            if count >= most or time.monotonic() > self._deadline:
                break
            count += len(step.found) if step.block else 0
        return count


class _Merged:
    """Several walks as one, newest first, over at most MOST_LOOKED_AT candidates."""

    def __init__(self, walks: list[_Walk]) -> None:
        self._walks = walks
        self._merged = heapq.merge(*walks, key=lambda found: -found[0])
        self._given = 0

    def __iter__(self) -> _Merged:
        return self

    def __next__(self) -> Candidate:
        if self._given >= MOST_LOOKED_AT:
            raise StopIteration
        found = next(self._merged)
        self._given += 1
        return found

    def rest(self) -> int:
        """How many more there are."""
        most = MOST_LOOKED_AT - self._given
        count = sum(walk.given for walk in self._walks) - self._given
        for walk in self._walks:
            count += walk.rest(most - count) if count < most else 0
        return min(count, most)
