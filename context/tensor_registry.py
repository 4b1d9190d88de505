"""Hash -> where it was seen: a fold over the `tensor_math` items of the log, in bounded memory.

Entries lie in immutable runs sorted by key, the newest run last, as in an LSM tree: folding makes a
small run, and runs of like size are merged. An entry takes 44 bytes; the meaning itself stays in
the log. One thread folds, any thread looks up: a new tuple of runs is swapped in by one assignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from context.tensor_keys import Seen

MAX_ENTRIES = 1_000_000
_KEPT = 7 / 8  # of the entries, once there are more: so that dropping is rare
_MERGE = 8  # runs of like size joined at once


@dataclass(frozen=True, slots=True)
class Entry:
    """One hash: how often it was seen, and at which offsets."""

    key: bytes
    seen: int
    first: int
    newest: int
    meant: int  # newest offset with a meaning; -1 where there was none


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Entries sorted by key, as columns."""

    high: NDArray[np.uint64]  # first half of the key
    low: NDArray[np.uint64]
    first: NDArray[np.int64]
    newest: NDArray[np.int64]
    meant: NDArray[np.int64]
    seen: NDArray[np.uint32]

    def columns(self) -> tuple[NDArray[Any], ...]:
        """All columns in the order of the fields."""
        return self.high, self.low, self.first, self.newest, self.meant, self.seen

    def between(self, low: bytes, high: bytes, limit: int) -> Iterable[Entry]:
        """At most `limit` entries with keys from `low` to `high`."""
        start = int(np.searchsorted(self.high, _half(low), "left"))
        end = int(np.searchsorted(self.high, _half(high), "right"))
        for i in range(start, end):
            key = int(self.high[i]).to_bytes(8, "big") + int(self.low[i]).to_bytes(8, "big")
            if low <= key <= high:
                yield Entry(key, *(int(each[i]) for each in (self.seen, *self.columns()[2:5])))
                limit -= 1
                if not limit:
                    return


class Registry:
    """What is known of every hash, up to `folded`."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self.folded = -1  # offset up to which the log is folded
        self._limit = limit
        self._runs: tuple[Run, ...] = ()

    def __len__(self) -> int:
        """Entries held; a hash that was seen again may count twice until runs are merged."""
        return sum(len(run.high) for run in self._runs)

    def fold(self, seen: Seen, reached: int) -> None:
        """Take in the keys of `tensor_math` items; with them everything up to `reached` is folded.

        Where there are too many hashes those go that were not seen for the longest.
        """
        if len(seen.keys):
            runs = (*self._runs, _run(seen))
            last = runs[-_MERGE:]
            while len(last) == _MERGE and 4 * max(map(_size, last)) <= sum(map(_size, last)):
                runs = (*runs[:-_MERGE], _merged(last))
                last = runs[-_MERGE:]
            self._runs = runs
            if len(self) > self._limit:
                self._runs = (_newest(_merged(runs), int(self._limit * _KEPT)),)
        self.folded = reached

    def between(self, low: bytes, high: bytes, limit: int) -> list[Entry]:
        """Entries with keys from `low` to `high`, at most about `limit`, in the order of keys."""
        found: dict[bytes, Entry] = {}
        for entry in chain.from_iterable(run.between(low, high, limit) for run in self._runs):
            old = found.get(entry.key)
            found[entry.key] = _joined(old, entry) if old else entry
        return [found[key] for key in sorted(found)]

    def get(self, key: bytes) -> Entry | None:
        """What is known of one hash."""
        return next(iter(self.between(key, key, 1)), None)


def _half(key: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(key[:8], "big"))


def _joined(a: Entry, b: Entry) -> Entry:
    """One hash seen in two runs."""
    return Entry(
        a.key,
        a.seen + b.seen,
        min(a.first, b.first),
        max(a.newest, b.newest),
        max(a.meant, b.meant),
    )


def _run(seen: Seen) -> Run:
    once = np.ones(len(seen.keys), np.uint32)
    high, low = seen.keys.T
    return _sorted([high, low, seen.offsets, seen.offsets, seen.meant, once])


def _merged(runs: Sequence[Run]) -> Run:
    return _sorted(
        [np.concatenate(each) for each in zip(*(r.columns() for r in runs), strict=True)]
    )


def _sorted(columns: Sequence[NDArray[Any]]) -> Run:
    """Sorted by key, each key once."""
    order = _order(columns[0], columns[1])
    high, low, first, newest, meant, seen = (column[order] for column in columns)
    new = np.empty(len(order), np.bool_)
    new[0] = True
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.flatnonzero(new)
    return Run(
        high[starts],
        low[starts],
        np.minimum.reduceat(first, starts),
        np.maximum.reduceat(newest, starts),
        np.maximum.reduceat(meant, starts),
        np.add.reduceat(seen, starts),
    )


def _order(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.intp]:
    """How to sort by key. A stable sort by one half is far quicker on runs that are sorted, and it
    is the whole sort unless two keys share their first half."""
    order = np.argsort(high, kind="stable")
    tied = np.flatnonzero(high[order[1:]] == high[order[:-1]])
    if (low[order[tied + 1]] < low[order[tied]]).any():
        return np.lexsort((low, high))
    return order


def _newest(run: Run, count: int) -> Run:
    """The entries that were seen last."""
    if len(run.high) <= count:
        return run
    oldest = np.partition(run.newest, -count)[-count]
    keep = run.newest >= oldest
    return Run(*(column[keep] for column in run.columns()))


def _size(run: Run) -> int:
    return len(run.high)
