"""Expressions for hyperscan that propose at least the lines a query matches, as bytes of UTF-8.

They are written anew from the tree instead of passing the pattern on: both engines agree on the few
constructs used here, on which they would not agree in full (Unicode classes, case folding, `\\z`),
and what would make a database slow or huge is loosened.
"""

from __future__ import annotations

from context.literals import FOLD_INTO_ASCII, Formula
from context.pattern import Chars, Choice, Node, Pattern, Repeat, Sequence

MAX_EXPRESSION_BYTES = 2000  # longer ones become their literals
_MAX_COUNT = 8  # in a repetition; more become "or more"
_MAX_SPELLED = 4  # characters outside ASCII that are spelled out
_UTF8_BYTES = 4  # of one character, at most
_LINE_END = b"[^\\n]*\\n"  # one report a line, not one for each end that a match may have
_SURELY_RARE = 6  # bytes of a text that a line hardly holds often
_SAFE = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ORBITS = {
    letter: b"(?:%c|%c|%b)" % (letter, letter - 32, mark)
    for letter, mark in zip(b"ks", FOLD_INTO_ASCII, strict=True)
}


def exactly(text: bytes) -> bytes:
    """Proposes the lines that hold the text, and no others."""
    return _spelled(text) + (b"" if len(text) >= _SURELY_RARE else _LINE_END)


def freely(pattern: Pattern) -> bytes:
    """Proposes the lines that match the pattern, and few others, however long that becomes."""
    return b"(?:" + _write(pattern.root) + b")" + _LINE_END


def superset(pattern: Pattern, formula: Formula, max_bytes: int = MAX_EXPRESSION_BYTES) -> bytes:
    """Proposes the lines that match the pattern, and few others.

    `formula` is the pattern's own, for where it would become too large; it requires something.
    """
    whole = freely(pattern)
    if len(whole) <= max_bytes:
        return whole
    need = map(_folded if formula.folds else _spelled, formula.best())
    return b"(?:" + b"|".join(need) + b")" + _LINE_END


def _write(node: Node) -> bytes:
    if isinstance(node, Chars):
        return _chars(node)
    if isinstance(node, Sequence):
        return b"".join(map(_write, node.parts))
    if isinstance(node, Choice):
        return b"(?:" + b"|".join(map(_write, node.branches)) + b")"
    return _repeat(node)


def _repeat(repeat: Repeat) -> bytes:
    wide = isinstance(repeat.body, Chars) and _is_wide(repeat.body)
    body = _class(repeat.body) if wide else _write(repeat.body)  # type: ignore[arg-type]
    if not body or repeat.most == 0:
        return b""
    least = min(repeat.least, _MAX_COUNT)
    most = repeat.most * (_UTF8_BYTES if wide else 1) if repeat.most is not None else None
    if most is None or most > _MAX_COUNT:
        return b"(?:%b){%d,}" % (body, least)
    return b"(?:%b){%d,%d}" % (body, least, most)


def _chars(chars: Chars) -> bytes:
    if _is_wide(chars):
        return b"%b{1,%d}" % (_class(chars), _UTF8_BYTES)
    spelled = [
        _spelled(char.encode()) for char in _outside_ascii(chars).members(_MAX_SPELLED) or ()
    ]
    if chars.ranges[0][0] > 127:
        return b"(?:" + b"|".join(spelled) + b")"
    return b"(?:" + b"|".join((_class(chars), *spelled)) + b")" if spelled else _class(chars)


def _outside_ascii(chars: Chars) -> Chars:
    return Chars(tuple((max(low, 128), high) for low, high in chars.ranges if high > 127))


def _is_wide(chars: Chars) -> bool:
    """Whether any byte of a longer character is accepted for the characters outside ASCII."""
    return _outside_ascii(chars).members(_MAX_SPELLED) is None


def _class(chars: Chars) -> bytes:
    """A class of one byte; with all bytes outside ASCII where the characters are wide."""
    ranges = [(low, min(high, 127)) for low, high in chars.ranges if low < 128]
    if _is_wide(chars):
        ranges.append((128, 255))
    elif len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _spelled(bytes(ranges[0][:1]))
    return b"[" + b"".join(b"\\x%02x-\\x%02x" % pair for pair in ranges) + b"]"


def _spelled(text: bytes) -> bytes:
    return b"".join(b"%c" % byte if byte in _SAFE else b"\\x%02x" % byte for byte in text)


def _folded(text: bytes) -> bytes:
    """A text in ASCII lower case, in any case."""
    return b"".join(_ORBITS.get(byte) or b"(?i:%b)" % _spelled(bytes((byte,))) for byte in text)
