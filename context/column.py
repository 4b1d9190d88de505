"""One text per item as small integers, so that comparing items costs an array operation."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_NAMES = 1024  # distinct names kept in bounds; with more the set stops excluding anything


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One text per item as codes: `values[text]` is the code, -1 stands for no text."""

    values: dict[str, int]  # in the order of the codes; never changed
    codes: NDArray[np.int32]  # (items,)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Column:
        """The column of these texts, one per item."""
        values = _numbered(texts)
        codes = map(values.__getitem__, texts)
        return cls(values, np.fromiter(codes, dtype=np.int32, count=len(texts)))

    @classmethod
    def sparse(cls, texts: Sequence[Any]) -> Column:
        """As `of`, for values that need not be text: those have code -1."""
        kinds = set(map(type, texts))
        if kinds == {str}:
            return cls.of(texts)
        values = _numbered(text for text in texts if isinstance(text, str))
        codes: Iterable[int]
        if kinds <= {str, NoneType}:
            of: dict[Any, int] = {None: -1, **values}
            codes = map(of.__getitem__, texts)
        else:
            codes = (values[text] if isinstance(text, str) else -1 for text in texts)
        return cls(values, np.fromiter(codes, dtype=np.int32, count=len(texts)))

    @classmethod
    def join(cls, columns: Sequence[Column]) -> Column:
        """The column of all items of `columns`, in order."""
        values = dict(columns[0].values)
        parts = [columns[0].codes]
        for column in columns[1:]:
            for text in [text for text in column.values if text not in values]:
                values[text] = len(values)
            # The last entry is where code -1 lands: no text stays no text.
            to = [*map(values.__getitem__, column.values), -1]
            parts.append(np.array(to, dtype=np.int32)[column.codes])
        return cls(values, np.concatenate(parts))

    def mask(self, wanted: Collection[str], first: int, last: int) -> NDArray[np.bool_]:
        """Which of items first..last-1 have one of the wanted texts."""
        codes = self.codes[first:last]
        found = [self.values[text] for text in wanted if text in self.values]
        return np.equal(codes, found[0]) if len(found) == 1 else np.isin(codes, found)

    def names(self) -> frozenset[str] | None:
        """The texts for `Bounds`, None where there are too many."""
        return names_kept(self.values)


def names_kept(names: Collection[str]) -> frozenset[str] | None:
    """Names for `Bounds`, None where there are too many."""
    return _shared(frozenset(names)) if len(names) <= MAX_NAMES else None


@lru_cache(256)
def _shared(names: frozenset[str]) -> frozenset[str]:
    """One object for equal sets, one for equal names: thousands of blocks name the same symbols."""
    return frozenset(map(sys.intern, names))


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    return {text: code for code, text in enumerate(dict.fromkeys(texts))}
