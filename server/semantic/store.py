"""The vectors on disk: one for each distinct text, and which items hold it. Derived from the log.

A folder of plain arrays, little-endian, without headers; docs/semantic.md has the layout. Its
`head.json` says how long each one is and up to which offset the log has been read. It is written
last: after a crash what lies behind its lengths counts as never written, and is read again.

Vectors are compared one by one: 100,000 take 5 ms, and the answer is exact. docs/semantic.md tells
what was measured beside it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.ranking import quotas
from context.semantic_text import Passage
from server.semantic.columns import Columns, Damaged
from server.semantic.wish import Wish, name_key
from shared_storage.adapters.durable import replace_file

DIMENSIONS = 384
TEXTS: dict[str, np.dtype[Any]] = {
    "vector": np.dtype(("<f4", DIMENSIONS)),
    "digest": np.dtype("V16"),
}
ITEMS: dict[str, np.dtype[Any]] = {
    "text": np.dtype("<u4"), "offset": np.dtype("<i8"), "timestamp": np.dtype("<f8"),
    "type": np.dtype("<u8"), "source": np.dtype("<u8"), "symbol": np.dtype("<u8"),
}  # fmt: skip
HEAD, LAYOUT = "head.json", 1

log = logging.getLogger(__name__)
Vectors = NDArray[np.float32]


class Head(msgspec.Struct, forbid_unknown_fields=True):
    """Content of `head.json`."""

    epoch: str  # of the log that was read
    applied: int = -1  # the log was read up to this offset
    texts: int = 0
    items: int = 0
    generation: int = 0  # part of the names of the arrays
    layout: int = LAYOUT


class VectorStore:
    """What one log holds; what is of another log is thrown away. Belongs to one thread."""

    def __init__(self, folder: Path, epoch: str, *, stride: int = 1 << 18) -> None:
        """Open what is there; a search looks at `stride` items together."""
        self._stride = stride
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._head = _read_head(folder / HEAD)
        try:
            if (self._head.epoch, self._head.layout) != (epoch, LAYOUT):
                raise Damaged(f"{HEAD} is of another log")
            self._open()
        except Damaged as why:
            log.info("reading the log anew", extra={"reason": str(why)})
            self._head = Head(epoch)
            self._open()
        self._sweep()

    @property
    def applied(self) -> int:
        """The log has been read up to this offset."""
        return self._head.applied

    @property
    def texts(self) -> int:
        """Number of distinct texts, each with a vector."""
        return len(self._ids)

    @property
    def items(self) -> int:
        """Number of items that hold one of the texts."""
        return len(self._items)

    def unknown(self, templates: Sequence[str]) -> list[str]:
        """Those without a vector yet, each once."""
        return [each for each in dict.fromkeys(templates) if _digest(each) not in self._ids]

    def append(
        self, passages: Sequence[Passage], vectors: Mapping[str, Vectors], reached: int
    ) -> None:
        """Take in what the log holds up to `reached`: found at once, durable by `commit`.

        `vectors` has one of length 1 for each text that is not here.
        """
        for template, vector in vectors.items():
            digest = _digest(template)
            self._ids[digest] = self._texts.append(vector=[vector], digest=[digest])
        texts = [self._ids[_digest(each.template)] for each in passages]
        self._items.append(
            text=texts,
            offset=[each.offset for each in passages],
            timestamp=[each.timestamp for each in passages],
            type=[name_key(each.type) for each in passages],
            source=[name_key(each.source) for each in passages],
            symbol=[0 if each.symbol is None else name_key(each.symbol) for each in passages],
        )
        self._counts.resize(self.texts, refcheck=False)
        np.add.at(self._counts, np.array(texts, np.int64), 1)
        self._head.applied = reached

    def commit(self) -> None:
        """Make everything appended survive a loss of power."""
        self._texts.sync()
        self._items.sync()
        head = self._head
        self._write(Head(head.epoch, head.applied, self.texts, self.items, head.generation))

    def search(self, query: Vectors, wish: Wish) -> list[tuple[int, float]]:
        """Offsets and similarities (-1..1) of the items nearest to a vector, best first."""
        counts = self._counts if wish.open else self._count(wish)
        scores = self._texts["vector"] @ query
        scores[counts == 0] = -np.inf
        best = _largest(scores, min(wish.limit, int(np.count_nonzero(counts))))
        places = quotas(counts[best].tolist(), wish.limit)
        offsets = self._newest(best, places, wish)
        return [
            (offset, float(scores[text]))
            for text, found in zip(best.tolist(), offsets, strict=True)
            for offset in found
        ]

    def forget(self, oldest: int) -> None:
        """Let go of items below an offset once they are most of all, and of texts of no item."""
        offsets = self._items["offset"]
        first = int(np.searchsorted(offsets, oldest))
        if first <= len(offsets) // 2:
            return
        kept = {name: np.array(self._items[name][first:]) for name in ITEMS}
        used, kept["text"] = np.unique(kept["text"], return_inverse=True)
        rows = {name: np.array(self._texts[name][used]) for name in TEXTS}
        head = Head(self._head.epoch, self.applied, generation=self._head.generation + 1)
        texts, items = _columns(self._folder, head)
        texts.append(**rows)
        items.append(**kept)
        texts.sync()
        items.sync()
        head.texts, head.items = len(texts), len(items)
        self._write(head)
        for each in (texts, items, self):
            each.close()
        self._open()
        self._sweep()

    def close(self) -> None:
        """Let go of the files, without a commit."""
        self._texts.close()
        self._items.close()

    def _open(self) -> None:
        self._texts, self._items = _columns(self._folder, self._head)
        self._ids = {each.tobytes(): i for i, each in enumerate(self._texts["digest"])}
        self._counts = np.bincount(self._items["text"], minlength=self.texts)

    def _write(self, head: Head) -> None:
        replace_file(self._folder / HEAD, msgspec.json.encode(head))
        self._head = head

    def _sweep(self) -> None:
        """Delete what is of other generations."""
        for path in (*self._folder.glob("texts.*"), *self._folder.glob("items.*")):
            if path not in (*self._texts.paths, *self._items.paths):
                path.unlink()

    def _count(self, wish: Wish) -> NDArray[np.int64]:
        """How many items that pass each text has."""
        counts = np.zeros(self.texts, np.int64)
        for part in self._parts(wish):
            counts += np.bincount(self._items["text"][part], minlength=self.texts)
        return counts

    def _newest(self, texts: NDArray[np.int64], places: list[int], wish: Wish) -> list[list[int]]:
        """For each text the newest offsets that pass, as many as it has places."""
        found: list[list[int]] = [[] for _ in places]
        rank = np.full(self.texts, -1, np.int32)
        rank[texts] = np.arange(len(texts))
        rank[texts[np.array(places) == 0]] = -1
        open_ = sum(places)
        for part in self._parts(wish):
            if not open_:
                break
            ranks = rank[self._items["text"][part]][::-1]
            offsets = self._items["offset"][part][::-1]
            for i, at in _groups(ranks):
                taken = offsets[at[: places[i] - len(found[i])]].tolist()
                found[i] += taken
                open_ -= len(taken)
                if len(found[i]) == places[i]:
                    rank[texts[i]] = -1
        return found

    def _parts(self, wish: Wish) -> Iterator[Any]:
        """Indices (or slices) of items that pass, newest stretch first, ascending in each."""
        for end in range(self.items, 0, -self._stride):
            part = slice(max(0, end - self._stride), end)
            yield part if wish.open else part.start + wish.passing(self._items, part)


def _columns(folder: Path, head: Head) -> tuple[Columns, Columns]:
    texts = Columns(folder, f"texts.{head.generation}", TEXTS, head.texts)
    return texts, Columns(folder, f"items.{head.generation}", ITEMS, head.items)


def _digest(template: str) -> bytes:
    return hashlib.blake2b(template.encode(), digest_size=16).digest()


def _groups(ranks: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each rank from 0 up that occurs, with the places where it stands, ascending."""
    hits = np.flatnonzero(ranks >= 0)
    order = hits[np.argsort(ranks[hits], kind="stable")]
    starts = np.flatnonzero(np.diff(ranks[order], prepend=-1))  # none where nothing was hit
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=False):
        yield int(ranks[order[start]]), order[start:end]


def _largest(scores: Vectors, count: int) -> NDArray[np.int64]:
    """Indices of the largest scores, descending; equal ones in order of their index."""
    if count < len(scores):
        found = np.sort(np.argpartition(-scores, count)[:count])
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")]


def _read_head(path: Path) -> Head:
    """What was written last; of no log where that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Head)
    except (OSError, msgspec.MsgspecError):
        return Head("")
