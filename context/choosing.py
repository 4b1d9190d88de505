"""Which candidates a packed context prefers: by relevance, without near-duplicates, within quotas.

All of it is a function of the candidates and the request: the same ones are chosen in the same
order everywhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Candidate = tuple[int, bytes, bytes]  # offset, item JSON, line

SIGNIFICANT = 4  # digits in which numbers of alike items agree
_TYPE = re.compile(rb'\{"type":"([a-z0-9_]*)"')
_SYMBOL = re.compile(rb'"symbol":"((?:[^"\\]|\\.)*)"')
_TIMESTAMP = re.compile(rb',"timestamp":[^,]*,')
_NUMBER = re.compile(rb"(?<=[:,\[])-?\d[\d.eE+-]*(?=[,\]}])")
_NAMED = re.compile(rb"\b(?:[0-9a-f]{8,}|\d{4,})\b")  # what tells one event from another in a text
_WORD = re.compile(r"\w+")


def type_of(line: bytes) -> str:
    """The type of an item, from its line or its JSON."""
    found = _TYPE.search(line)
    return found[1].decode() if found else ""


def signature(line: bytes) -> bytes:
    """What near-duplicates have in common.

    The line without its time, numbers cut to SIGNIFICANT digits, and without long numbers and hex
    ids in texts. The symbol stays as it is: two markets are never alike.
    """
    symbol = _SYMBOL.search(line)
    cut = _NUMBER.sub(_rounded, _TIMESTAMP.sub(b",", line, count=1))
    return _NAMED.sub(b"#", cut) + (symbol[1] if symbol else b"")


def _rounded(found: re.Match[bytes]) -> bytes:
    try:
        return f"{float(found[0]):.{SIGNIFICANT - 1}e}".encode()
    except ValueError:
        return found[0]


@dataclass(slots=True)
class Gate:
    """Lets items in one by one, and says why not: `quotas`, or `alike` to one let in before."""

    quotas: Mapping[str, int]
    fold: bool
    alike: Counter[int] = field(default_factory=Counter)  # folded into the item at an offset
    _taken: Counter[str] = field(default_factory=Counter)
    _seen: dict[bytes, int] = field(default_factory=dict)

    def refuses(self, offset: int, line: bytes) -> str | None:
        """The reason, or None: the item may come in."""
        if self.quotas:
            name = type_of(line)
            if self._taken[name] >= self.quotas.get(name, 1 << 60):
                return "quotas"
        if self.fold:
            known = self._seen.get(signature(line))
            if known is not None:
                self.alike[known] += 1
                return "alike"
        return None

    def let_in(self, offset: int, line: bytes) -> None:
        """Count an item that was taken."""
        if self.quotas:
            self._taken[type_of(line)] += 1
        if self.fold:
            self._seen[signature(line)] = offset


def by_relevance(
    candidates: Iterable[Candidate],
    *,
    symbols: Sequence[str],
    query: str,
    hashes: Sequence[str],
    limit: int,
) -> list[Candidate]:
    """Candidates, given newest first, the most relevant ones first; of equals the newer.

    One point each for: one of the symbols; the share of the query's words in the line, a case
    apart; one of the tensor `hashes` (whose meaning fits the query); and recency, which halves
    every `limit` items.
    """
    wanted = [f'"symbol":"{symbol}"'.encode() for symbol in symbols]
    words = [word.encode() for word in _WORD.findall(query.lower())]
    named = [each.lower().encode() for each in hashes]

    def score(rank: int, line: bytes) -> float:
        low = line.lower() if words or named else line
        points: float = 2.0 ** (-rank / limit)
        points += float(any(symbol in line for symbol in wanted))
        points += sum(word in low for word in words) / len(words) if words else 0.0
        return points + float(any(each in low for each in named))

    scored = [(-score(rank, each[2]), -each[0], each) for rank, each in enumerate(candidates)]
    return [each for _, _, each in sorted(scored, key=lambda found: found[:2])]


def stable_start(offsets: Sequence[int]) -> int:
    """Where a sliding window of ascending offsets may begin so that it seldom moves.

    Its first offset rounded up to a power of two of about a quarter of its span: while items come
    at the end, the beginning stays for about a quarter of the window, and a prompt cache holds.
    """
    span = offsets[-1] - offsets[0] + 1
    step = 1 << max(0, (span // 4).bit_length() - 1)
    return -(-offsets[0] // step) * step


def grouped(offsets: Sequence[int], of: Callable[[int], str]) -> dict[str, list[int]]:
    """Offsets by a name of each."""
    groups: dict[str, list[int]] = {}
    for offset in offsets:
        groups.setdefault(of(offset), []).append(offset)
    return groups
