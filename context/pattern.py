"""RE2 syntax as a tree, for reasoning about what a match must look like.

The tree may accept more than the pattern, never less: anchors and word boundaries are dropped,
captures are transparent, a Unicode class is any character, and a letter under `(?i)` is its whole
fold orbit or more. RE2 itself has accepted the pattern before; what this reader does not know
(`\\C`, deep nesting) makes it give up, and nothing is concluded then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]  # inclusive code points, ascending, apart


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of these; never empty, never a newline."""

    ranges: Ranges

    def members(self, limit: int) -> list[str] | None:
        """The characters in order; None where there are more than `limit`."""
        if sum(high - low + 1 for low, high in self.ranges) > limit:
            return None
        return [chr(code) for low, high in self.ranges for code in range(low, high + 1)]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other; no parts match the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of the branches."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The body, `least` to `most` times; without end where `most` is None."""

    body: Node
    least: int
    most: int | None


Node = Chars | Sequence | Choice | Repeat


@dataclass(frozen=True, slots=True)
class Pattern:
    """A query as a tree. `folds`: some of it ignores case."""

    root: Node
    folds: bool

    def text(self) -> str | None:
        """The one text that it stands for; None where it is more than a plain text."""
        parts = self.root.parts if isinstance(self.root, Sequence) else (self.root,)
        members = [part.members(1) if isinstance(part, Chars) else None for part in parts]
        return None if None in members else "".join(one[0] for one in members if one)


class _Unknown(Exception):
    """Something that this reader draws no conclusions from."""


def parse(query: str, *, regex: bool, ignore_case: bool) -> Pattern | None:
    """The tree of a query that RE2 accepts; None where nothing can be said about its matches."""
    reader = _Reader(query, ignore_case)
    try:
        root = reader.choice(0) if regex else reader.plain()
    except (_Unknown, IndexError):
        return None
    return Pattern(root, reader.folds) if reader.at == len(query) else None


_LAST = 0x10FFFF
_ALL: Ranges = ((0, _LAST),)
_NEVER: Ranges = ((10, 10), (0xD800, 0xDFFF))  # a line holds no newline and is valid UTF-8
_KELVIN, _LONG_S = 0x212A, 0x17F  # the characters outside ASCII that fold to k and s
_DEPTH = 50
_ZERO_WIDTH = "AzbB"
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_PERL = {"d": "09", "s": "\t\n\f\r  ", "w": "09AZ__az"}
_POSIX = {
    "alnum": "09AZaz",
    "alpha": "AZaz",
    "ascii": "\0\x7f",
    "blank": "\t\t  ",
    "cntrl": "\0\x1f\x7f\x7f",
    "digit": "09",
    "graph": "!~",
    "lower": "az",
    "print": " ~",
    "punct": "!/:@[`{~",
    "space": "\t\r  ",
    "upper": "AZ",
    "word": "09AZ__az",
    "xdigit": "09AFaf",
}
_COUNT = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")
_GROUP = re.compile(r"\(\?P?<[^>]*>")
_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]*)?([:)])")
_POSIX_CLASS = re.compile(r"\[:(\^?)(\w+):\]")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
_UNICODE = re.compile(r"[pP](?:\{[^}]*\}|.)")
_EMPTY = Sequence(())


def _pairs(text: str) -> Ranges:
    return _union((ord(text[i]), ord(text[i + 1])) for i in range(0, len(text), 2))


def _union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def _others(ranges: Ranges) -> Ranges:
    """Every code point that is not in the ranges."""
    edges = [-1, *(edge for pair in ranges for edge in pair), _LAST + 1]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return tuple((low + 1, high - 1) for low, high in pairs if low + 1 < high)


def _cases(ranges: Ranges) -> Ranges:
    """With the other case of ASCII letters: no more than RE2's folding adds."""
    found = list(ranges)
    for low, high in ranges:
        for first, last, shift in ((65, 90, 32), (97, 122, -32)):
            if low <= last and high >= first:
                found.append((max(low, first) + shift, min(high, last) + shift))
    return _union(found)


def _orbits(ranges: Ranges) -> Ranges:
    """With whatever folds to one of them: no less than RE2's folding adds."""
    found = list(ranges)
    if ranges[-1:] and ranges[-1][1] > 127:
        found.append((128, _LAST))
    for code, letter in ((_KELVIN, 75), (_LONG_S, 83)):
        for low, high in ranges:
            if any(low <= one <= high for one in (code, letter, letter + 32)):
                found += [(code, code), (letter, letter)]
    return _cases(_union(found))


@dataclass(frozen=True, slots=True)
class _Set:
    """A class of characters known between bounds, so that its opposite is known too."""

    least: Ranges  # surely in it
    most: Ranges  # nothing else is in it

    def opposite(self) -> _Set:
        return _Set(_others(self.most), _others(self.least))


class _Reader:
    def __init__(self, text: str, fold: bool) -> None:
        self._text, self._fold = text, fold
        self.at = 0
        self.folds = fold

    def plain(self) -> Node:
        """The whole text as it stands."""
        self.at = len(self._text)
        return Sequence(tuple(self._one(ord(char)) for char in self._text))

    def choice(self, depth: int) -> Node:
        """Branches up to the end of the group."""
        if depth > _DEPTH:
            raise _Unknown
        branches: list[Node] = []
        parts: list[Node] = []
        while self.at < len(self._text) and self._text[self.at] != ")":
            if self._text[self.at] == "|":
                self.at += 1
                branches.append(Sequence(tuple(parts)))
                parts = []
            else:
                self._piece(parts, depth)
        branches.append(Sequence(tuple(parts)))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _piece(self, parts: list[Node], depth: int) -> None:
        char = self._text[self.at]
        if char == "(":
            self._group(parts, depth)
        elif char == "\\":
            self._escape(parts)
        elif char in "*+?" or (char == "{" and _COUNT.match(self._text, self.at)):
            self._repeat(parts)
        else:
            self.at += 1
            if char == "[":
                parts.append(self._class())
            elif char in "^$":
                parts.append(_EMPTY)
            else:
                parts.append(self._chars(_ALL) if char == "." else self._one(ord(char)))

    def _group(self, parts: list[Node], depth: int) -> None:
        outer = self._fold
        if self._text.startswith("(?", self.at):
            name = _GROUP.match(self._text, self.at)
            flags = None if name else _FLAGS.match(self._text, self.at)
            if flags:
                self._fold = (outer or "i" in flags[1]) and "i" not in (flags[2] or "")
                self.folds |= self._fold
            opened = name or flags
            if not opened:
                raise _Unknown
            self.at = opened.end()
            if flags and flags[3] == ")":
                return
        else:
            self.at += 1
        parts.append(self.choice(depth + 1))
        if self._text[self.at] != ")":
            raise _Unknown
        self.at += 1
        self._fold = outer

    def _repeat(self, parts: list[Node]) -> None:
        count = _COUNT.match(self._text, self.at)
        if count:
            least = int(count[1])
            most = least if count[2] is None else int(count[3]) if count[3] else None
            self.at = count.end()
        else:
            char = self._text[self.at]
            least, most = int(char == "+"), (1 if char == "?" else None)
            self.at += 1
        if self._text.startswith("?", self.at):  # prefers fewer: matches the same lines
            self.at += 1
        if not parts:
            raise _Unknown
        parts.append(Repeat(parts.pop(), least, most))

    def _escape(self, parts: list[Node]) -> None:
        if self._text.startswith("Q", self.at + 1):
            end = self._text.find("\\E", self.at)
            quoted = self._text[self.at + 2 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self._text)
            parts += [self._one(ord(char)) for char in quoted]
        elif self._text[self.at + 1] in _ZERO_WIDTH:
            self.at += 2
            parts.append(_EMPTY)
        else:
            known = self._escaped_set()
            parts.append(self._chars(known.most) if known else self._one(self._escaped()))

    def _escaped_set(self) -> _Set | None:
        """A class behind a backslash, if there is one."""
        kind = self._text[self.at + 1]
        if kind.lower() in _PERL:
            self.at += 2
            known = self._known(_pairs(_PERL[kind.lower()]))
            return known if kind.islower() else known.opposite()
        unicode = _UNICODE.match(self._text, self.at + 1)
        if not unicode:
            return None
        self.at = unicode.end()
        return _Set((), _ALL)

    def _escaped(self) -> int:
        """The code point of a character behind a backslash."""
        start = self.at + 1
        octal, code = _OCTAL.match(self._text, start), _HEX.match(self._text, start)
        if octal or code:
            found = octal or code
            assert found is not None
            self.at = found.end()
            return int(octal[0], 8) if octal else int(found[1] or found[2], 16)
        char = self._text[start]
        self.at += 2
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum() or char == "_":
            raise _Unknown
        return ord(char)

    def _class(self) -> Node:
        negated = self._text[self.at] == "^"
        self.at += negated
        least: list[tuple[int, int]] = []
        most: list[tuple[int, int]] = []
        first = True
        while first or self._text[self.at] != "]":
            item = self._class_item()
            least += item.least
            most += item.most
            first = False
        self.at += 1
        known = _Set(_union(least), _union(most))
        return self._chars((known.opposite() if negated else known).most)

    def _class_item(self) -> _Set:
        posix = _POSIX_CLASS.match(self._text, self.at)
        if posix:
            if posix[2] not in _POSIX:
                raise _Unknown
            self.at = posix.end()
            known = self._known(_pairs(_POSIX[posix[2]]))
            return known.opposite() if posix[1] else known
        if self._text[self.at] == "\\":
            known_set = self._escaped_set()
            if known_set:
                return known_set
        low = high = self._class_char()
        if self._text[self.at] == "-" and self._text[self.at + 1] != "]":
            self.at += 1
            high = self._class_char()
        return self._known(((low, high),))

    def _class_char(self) -> int:
        if self._text[self.at] == "\\":
            return self._escaped()
        self.at += 1
        return ord(self._text[self.at - 1])

    def _known(self, ranges: Ranges) -> _Set:
        return _Set(_cases(ranges), _orbits(ranges)) if self._fold else _Set(ranges, ranges)

    def _one(self, code: int) -> Node:
        return self._chars(self._known(((code, code),)).most)

    def _chars(self, ranges: Ranges) -> Node:
        rest = _others(_union((*_others(ranges), *_NEVER)))
        if not rest:
            raise _Unknown
        return Chars(rest)
