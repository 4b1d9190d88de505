"""JSON text as it came, made into the text of lines: no white space, nothing escaped needlessly.

Numbers stay as they were sent, digit by digit. What a line holds is checked elsewhere; here only
that is looked for which a decoder that skips values would let pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.compiled import compiled

_SPACE = 1  # white space between tokens
_ODD = 2  # something that only decoding the line can judge
_MIXED = 4  # other fields than those of a line, or in another order
_NONE = np.empty(0, dtype=np.intp)

_NEWLINE, _QUOTE, _BACKSLASH, _BLANK = 10, 34, 92, 32
_ZERO, _NINE, _MINUS, _PLUS, _COMMA = 48, 57, 45, 43, 44
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = 123, 125, 91, 93
_BIG_E, _SMALL_E = 69, 101
_SMALL_N, _SMALL_R, _SMALL_T = 110, 114, 116
_RETURN = 13
_FIELDS = (b"type", b"source", b"timestamp", b"data", b"metadata")
_NEEDED = 4  # all but the metadata
_NAMES = np.frombuffer(b"".join(_FIELDS), dtype=np.uint8)
_ENDS = np.array([*np.cumsum([len(name) for name in _FIELDS]), 0])
_STARTS = np.array([0, *_ENDS[:-1]])
_LONG, _EXPONENT = 200, 4  # a number of so many digits is finite, as is one with "e+99" behind them
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')

_decode = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Tidied:
    """NDJSON without white space between tokens, and what was seen of it."""

    text: bytes
    unusual: list[tuple[int, int, bool]]  # begin, end and oddity of lines that need another look


def tidy(text: bytes) -> Tidied:
    """Lines that need another look are blank, or have not just the fields of a line in their order.

    An odd one may hold escapes that `unescaped` removes, or a number that is not finite.
    """
    found, ends = _surveyed(text)
    every = int(np.bitwise_or.reduce(found))
    if every & _SPACE:
        text = _stripped(text, keep=True)
        found, ends = _surveyed(text)
    unusual = np.flatnonzero(found & (_ODD | _MIXED)) if every & (_ODD | _MIXED) else _NONE
    begins = np.where(unusual > 0, ends[unusual - 1] + 1, 0)
    odd = (found[unusual] & _ODD) > 0
    rows = zip(begins.tolist(), ends[unusual].tolist(), odd.tolist(), strict=True)
    return Tidied(text, list(rows))


def one_line(text: bytes) -> bytes:
    """A JSON value without white space between its tokens."""
    found, _ = _surveyed(text)
    return _stripped(text, keep=False) if len(found) > 1 or found[0] & _SPACE else text


def unescaped(line: bytes) -> bytes:
    """JSON with its strings as UTF-8; only quotes, backslashes and control characters escaped."""
    return _STRING.sub(_unescaped, line)


def _surveyed(text: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = np.frombuffer(text, dtype=np.uint8)
    count = int(np.count_nonzero(data == _NEWLINE)) + (not text.endswith(b"\n"))
    found, ends = np.zeros(count, dtype=np.uint8), np.full(count, len(text), dtype=np.int64)
    _survey(data, found, ends)
    return found, ends


def _unescaped(string: re.Match[bytes]) -> bytes:
    return _encode(_decode(string[0])) if b"\\" in string[0] else string[0]


def _stripped(text: bytes, *, keep: bool) -> bytes:
    room = np.empty(len(text), dtype=np.uint8)
    size = np.zeros(1, dtype=np.int64)
    _strip(np.frombuffer(text, dtype=np.uint8), room, keep, size)
    return room[: size[0]].tobytes()


@compiled
def _survey(  # noqa: PLR0912 - one state machine
    text: NDArray[np.uint8], found: NDArray[np.uint8], ends: NDArray[np.int64]
) -> None:
    """Mark in `found` what each line holds, and in `ends` where it ends; `found` begins as 0."""
    i, n, line = 0, len(text), 0
    depth, field, key = 0, 0, False  # field: how many of the top-level names came, in order
    while i < n:
        c = text[i]
        i += 1
        if c == _QUOTE:
            end, odd = _string(text, i)
            if odd:
                found[line] |= _ODD
            if key and depth == 1:
                if _is_name(text, i, end, field):
                    field += 1
                else:
                    found[line] |= _MIXED
            key = False
            i = end + 1 if end < n and text[end] == _QUOTE else end
        elif c == _MINUS or (_ZERO <= c <= _NINE):
            i, odd = _number(text, i)
            if odd:
                found[line] |= _ODD
        elif c == _COMMA:
            key = True
        elif c in (_OPEN_OBJECT, _OPEN_ARRAY):
            depth += 1
            key = c == _OPEN_OBJECT
        elif c in (_CLOSE_OBJECT, _CLOSE_ARRAY):
            depth -= 1
        elif c == _NEWLINE:
            if field < _NEEDED:
                found[line] |= _MIXED
            ends[line] = i - 1
            line += 1
            depth, field, key = 0, 0, False
        elif c <= _BLANK and not (c == _RETURN and i < n and text[i] == _NEWLINE):
            found[line] |= _SPACE
    if line < len(found) and field < _NEEDED:
        found[line] |= _MIXED


@compiled
def _string(text: NDArray[np.uint8], i: int) -> tuple[int, bool]:
    """Where the string ends that begins at i (at a newline where it is broken), and if it is odd.

    Quote, backslash, \\n, \\r and \\t are escaped like this in a line; all else is odd.
    """
    n, odd = len(text), False
    while i < n and text[i] != _QUOTE and text[i] != _NEWLINE:
        if text[i] == _BACKSLASH and i + 1 < n and text[i + 1] != _NEWLINE:
            i += 1
            odd |= text[i] not in (_QUOTE, _BACKSLASH, _SMALL_N, _SMALL_R, _SMALL_T)
        i += 1
    return i, odd


@compiled
def _number(text: NDArray[np.uint8], i: int) -> tuple[int, bool]:
    """Where the number ends whose first byte lies before i, and whether it may be infinite."""
    start, exponent, n = i - 1, len(text), len(text)
    while i < n and _PLUS <= text[i] <= _SMALL_E and text[i] != _COMMA:
        if text[i] >= _BIG_E:
            exponent = i
        i += 1
    return i, min(exponent, i) - start > _LONG or i - exponent > _EXPONENT


@compiled
def _is_name(text: NDArray[np.uint8], start: int, end: int, field: int) -> bool:
    """Whether the name of the field that is due stands there."""
    first = _STARTS[field]
    if end - start != _ENDS[field] - first:
        return False
    for i in range(start, end):  # noqa: SIM110 - a loop is what the compiler knows
        if text[i] != _NAMES[first + i - start]:
            return False
    return True


@compiled
def _strip(
    text: NDArray[np.uint8], room: NDArray[np.uint8], keep: bool, size: NDArray[np.int64]
) -> None:
    """Copy all but white space between tokens; newlines too where they are to be kept."""
    at, inside, escaped = 0, False, False
    for i in range(len(text)):
        c = text[i]
        if inside:
            if escaped:
                escaped = False
            elif c == _BACKSLASH:
                escaped = True
            elif c == _QUOTE or (keep and c == _NEWLINE):
                inside = False
        elif c == _QUOTE:
            inside = True
        if inside or c > _BLANK or (keep and c == _NEWLINE):
            room[at] = c
            at += 1
    size[0] = at
