"""What is hashed of `tensor_math` lines, byte for byte, in one compiled pass.

It knows the usual only: names and texts without escapes, values that are numbers, texts, words or
tensors of numbers. A line with anything else in what is hashed is left to `context.tensors`, whose
bytes these are. It stays within a line whatever the line holds, and it reads no more of it than
those fields: the lines of a log were checked when they came.

Decimal numbers become the nearest binary64 by the algorithm of Eisel and Lemire (Lemire, Number
Parsing at a Gigabyte per Second, Software: Practice and Experience 51(8), 2021), which needs one
product of 128 bits; the rare number for which that is not enough is left out too.

All but single bytes in one module: the machine code that is kept notices changes of its own file
alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from context.compiled import compiled, inlined
from context.words import byte

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

LEFT = -1  # length of what is hashed where a line is left to others
NONE, TEXT, HEX = 0, 1, 2  # kinds of a `hash_value`
MAX_RANK = 8
ROOM_A_BYTE, ROOM_A_LINE = 4, 256  # what is hashed of a line is no longer

_NEWLINE, _QUOTE, _BACKSLASH = 10, 34, 92
_PLUS, _COMMA, _MINUS, _POINT, _ZERO, _NINE, _COLON = 43, 44, 45, 46, 48, 57, 58
_BIG_E, _SMALL_E, _OPEN_ARRAY, _CLOSE_ARRAY = 69, 101, 91, 93
_OPEN_OBJECT, _CLOSE_OBJECT = 123, 125
_A, _D, _F, _N, _O, _S, _T = 65, 68, 70, 78, 79, 83, 84
_SMALL_A, _SMALL_F, _SMALL_N, _SMALL_T = 97, 102, 110, 116

_VERSION = np.frombuffer(b"context-tensor/1\n", dtype=np.uint8)
_FIELDS = (b"input_data", b"operation", b"result", b"hash_value", b"context_meaning")
_INPUT, _OPERATION, _RESULT, _HASH, _MEANING = range(5)
_NAMES = np.frombuffer(b"".join(_FIELDS), dtype=np.uint8)
_NAME_ENDS = np.cumsum([0, *map(len, _FIELDS)])
_BEFORE = np.frombuffer(b'{"type":"tensor_math","source":"', dtype=np.uint8)
_TIMESTAMP = np.frombuffer(b',"timestamp":', dtype=np.uint8)
_DATA = np.frombuffer(b',"data":{', dtype=np.uint8)

# Powers of ten as 128 bits each, the highest set; what is beyond is left out.
_LOWEST, _HIGHEST = -60, 60
_HEX_DIGITS = 32  # of a hash, as many as its key has


def _powers() -> NDArray[np.uint64]:
    found = []
    for power in range(_LOWEST, _HIGHEST + 1):
        bits = (5 ** abs(power)).bit_length()
        if power >= 0:
            value = 5**power << 128 >> bits
        else:
            value = (1 << (bits + 127 if power >= -27 else 2 * bits + 128)) // 5**-power + 1
            value >>= value.bit_length() - 128
        found.append((value >> 64, value & ((1 << 64) - 1)))
    return np.array(found, dtype=np.uint64)


_POWERS = _powers()
_1, _3, _9, _32 = np.uint64(1), np.uint64(3), np.uint64(9), np.uint64(32)
_LOW, _TOP = np.uint64(0xFFFFFFFF), np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_SPARE = np.uint64(0x1FF)  # bits of a product behind those of a binary64 and two more
_FRACTION, _IMPLIED = np.uint64(52), np.uint64(1 << 52)
_EXACT = np.uint64(1 << 53)
_DIGITS = 19  # always fit in 64 bits


@compiled
def walk(  # noqa: PLR0917 - compiled: room made outside
    text: Bytes,
    begins: Ints,
    room: Bytes,
    spans: Ints,
    sent: Ints,
    kinds: NDArray[np.int8],
    keys: NDArray[np.uint64],
    meant: NDArray[np.bool_],
) -> None:
    """Write what is hashed of each line to `room`.

    Parameters
    ----------
    text : lines, each ended by a newline
    begins : (lines,), where they begin
    room : bytes, `ROOM_A_BYTE` a byte of these lines and `ROOM_A_LINE` for each
    spans : (lines, 2), begin in `room` and length, which is LEFT where the line is unusual
    sent : (lines, 2), begin and end of its `hash_value` in `text`
    kinds : (lines,): NONE, TEXT, or HEX where `keys` has its key
    keys : (lines, 2), both halves of that key
    meant : (lines,), whether there is a meaning
    """
    at = 0
    values = np.empty((5, 2), dtype=np.int64)
    for k in range(len(begins)):
        spans[k, 0], spans[k, 1], kinds[k] = at, LEFT, NONE
        i = _data(text, begins[k])
        if i < 0 or not _fields(text, i, values) or values[_RESULT, 0] < 0:
            continue
        first = values[_HASH, 0]
        if first >= 0 and byte(text, first) == _QUOTE:
            sent[k, 0], sent[k, 1] = first + 1, values[_HASH, 1] - 1
            if sent[k, 1] > sent[k, 0]:
                kinds[k] = _key(text, sent[k, 0], sent[k, 1], keys[k])
            if kinds[k] < 0:
                continue
        elif first >= 0 and byte(text, first) != _SMALL_N:
            continue
        first = values[_MEANING, 0]
        if first >= 0 and byte(text, first) not in (_QUOTE, _SMALL_N):
            continue
        meant[k] = first >= 0 and byte(text, first) == _QUOTE and byte(text, first + 1) != _QUOTE
        end = _object(text, values, room, at)
        if end >= 0:
            spans[k, 1] = end - at
            at = end


@inlined
def _data(text: Bytes, i: int) -> int:
    """Behind the bracket that opens the data of the line at i; -1 where it stands elsewhere."""
    if not _stands(text, i, _BEFORE):
        return -1
    i = _behind_text(text, i + len(_BEFORE) - 1)
    if i < 0 or not _stands(text, i, _TIMESTAMP):
        return -1
    i += len(_TIMESTAMP)
    while byte(text, i) not in (_COMMA, _NEWLINE):
        i += 1
    return i + len(_DATA) if _stands(text, i, _DATA) else -1


@inlined
def _fields(text: Bytes, i: int, values: Ints) -> bool:
    """Note where the values of the known fields stand, -1 where they are absent."""
    values[:] = -1
    if byte(text, i) == _CLOSE_OBJECT:
        return True
    while True:
        begin = i + 1
        if byte(text, i) != _QUOTE:
            return False
        i = _behind_text(text, i)
        if i < 0 or byte(text, i) != _COLON:
            return False
        field, i = _which(text, begin, i - 1), i + 1
        behind = _behind(text, i)
        if behind < 0:
            return False
        if field >= 0:
            if values[field, 0] >= 0:  # twice: the last one counts, elsewhere
                return False
            values[field, 0], values[field, 1] = i, behind
        i = behind
        if byte(text, i) == _CLOSE_OBJECT:
            return True
        if byte(text, i) != _COMMA:
            return False
        i += 1


@inlined
def _object(text: Bytes, values: Ints, room: Bytes, at: int) -> int:
    """Behind the hashed object, written at `at`; -1 where it holds anything unusual."""
    count = 0
    for field in range(_RESULT + 1):
        count += values[field, 0] >= 0
    for i in range(len(_VERSION)):
        room[at + i] = _VERSION[i]
    at += len(_VERSION)
    room[at] = _O
    at = _u32(room, at + 1, count)
    for field in range(_RESULT + 1):
        if values[field, 0] < 0:
            continue
        begin, end = _NAME_ENDS[field], _NAME_ENDS[field + 1]
        at = _u32(room, at, end - begin)
        for i in range(begin, end):
            room[at] = _NAMES[i]
            at += 1
        at = _value(text, values[field, 0], values[field, 1], room, at)
        if at < 0:
            return -1
    return at


@inlined
def _value(text: Bytes, begin: int, end: int, room: Bytes, at: int) -> int:
    """Behind the value that stands from `begin` to `end`, written at `at`; -1 if unusual."""
    c = byte(text, begin)
    if c == _OPEN_ARRAY:
        return _tensor(text, begin, room, at)
    if c == _QUOTE:
        room[at] = _S
        at = _u32(room, at + 1, end - begin - 2)
        for i in range(begin + 1, end - 1):
            if byte(text, i) == _BACKSLASH:
                return -1
            room[at] = byte(text, i)
            at += 1
        return at
    if c in (_SMALL_N, _SMALL_T, _SMALL_F):
        room[at] = _N if c == _SMALL_N else _T if c == _SMALL_T else _F
        return at + 1
    room[at] = _D
    return at + 9 if _number(text, begin, room, at + 1) == end else -1


@compiled
def _tensor(text: Bytes, i: int, room: Bytes, at: int) -> int:
    """Behind the tensor that begins at i, written at `at`; -1 where it is none."""
    rank = 0
    while byte(text, i + rank) == _OPEN_ARRAY:
        rank += 1
        if rank > MAX_RANK:
            return -1
    shape = np.full(MAX_RANK, -1, dtype=np.int64)
    counts = np.zeros(MAX_RANK, dtype=np.int64)
    room[at], room[at + 1] = _A, rank
    dimensions, at = at + 2, at + 2 + 4 * rank
    depth = 0
    while True:
        while depth < rank:
            if byte(text, i) != _OPEN_ARRAY:
                return -1
            counts[depth] = 0
            depth += 1
            i += 1
        i = _number(text, i, room, at)
        if i < 0:
            return -1
        at += 8
        counts[depth - 1] += 1
        while byte(text, i) == _CLOSE_ARRAY:
            depth -= 1
            if shape[depth] not in (-1, counts[depth]):
                return -1
            shape[depth] = counts[depth]
            i += 1
            if depth == 0:
                for d in range(rank):
                    _u32(room, dimensions + 4 * d, shape[d])
                return at
            counts[depth - 1] += 1
        if byte(text, i) != _COMMA:
            return -1
        i += 1


# --- numbers ----------------------------------------------------------------------------------


@compiled
def _number(text: Bytes, i: int, room: Bytes, at: int) -> int:
    """Behind the number at i, its 8 bytes written at `at`; -1 where it is left to others."""
    negative = byte(text, i) == _MINUS
    i += negative
    mantissa, digits, power = np.uint64(0), 0, 0
    first = i
    while _digit(byte(text, i)):
        mantissa = mantissa * np.uint64(10) + np.uint64(byte(text, i) - _ZERO)
        digits += int(digits > 0 or mantissa > 0)
        i += 1
    if i == first:
        return -1
    whole = byte(text, i) not in (_POINT, _SMALL_E, _BIG_E)
    if byte(text, i) == _POINT:
        i += 1
        first = i
        while _digit(byte(text, i)):
            mantissa = mantissa * np.uint64(10) + np.uint64(byte(text, i) - _ZERO)
            digits += int(digits > 0 or mantissa > 0)
            i += 1
        power = first - i
    if byte(text, i) in (_SMALL_E, _BIG_E):
        i += 1
        down = byte(text, i) == _MINUS
        i += down or byte(text, i) == _PLUS
        shift, first = 0, i
        while _digit(byte(text, i)) and i - first < 4:
            shift = 10 * shift + byte(text, i) - _ZERO
            i += 1
        if i == first or _digit(byte(text, i)):
            return -1
        power += -shift if down else shift
    if digits > _DIGITS or (whole and mantissa > _EXACT):
        return -1
    bits = _binary64(mantissa, power)
    if bits == _ALL:
        return -1
    if negative and mantissa:
        bits |= _1 << _TOP
    for shift in range(56, -8, -8):
        room[at] = (bits >> np.uint64(shift)) & np.uint64(255)
        at += 1
    return i


@compiled
def _binary64(mantissa: np.uint64, power: int) -> np.uint64:
    """Bits of the binary64 nearest to mantissa times 10 to `power`; all set for one left out."""
    if mantissa == 0:
        return mantissa
    if power < _LOWEST or power > _HIGHEST:
        return _ALL
    zeros = np.uint64(0)
    for step in (32, 16, 8, 4, 2, 1):
        if not mantissa >> np.uint64(64 - step):
            mantissa <<= np.uint64(step)
            zeros += np.uint64(step)
    high, low = _product(mantissa, _POWERS[power - _LOWEST, 0])
    if high & _SPARE == _SPARE:  # the lower half of the power may carry over
        more, _ = _product(mantissa, _POWERS[power - _LOWEST, 1])
        low += more
        if low < more:
            high += _1
    if low == _ALL and not -27 <= power <= 55:
        return _ALL
    upper = high >> _TOP
    bits = high >> (upper + _9)
    exponent = ((217706 * power) >> 16) + 63 + np.int64(upper) - np.int64(zeros) + 1023
    if exponent <= 0 or exponent >= 2046:
        return _ALL
    # Exactly between two: to the even one.
    if low <= 1 and -4 <= power <= 23 and bits & _3 == _1 and bits << (upper + _9) == high:
        bits ^= _1
    bits = (bits + (bits & _1)) >> _1
    if bits >= _IMPLIED << _1:
        bits = _IMPLIED
        exponent += 1
    return (bits & ~_IMPLIED) | (np.uint64(exponent) << _FRACTION)


@inlined
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Both halves of a product of 128 bits."""
    a1, a0, b1, b0 = a >> _32, a & _LOW, b >> _32, b & _LOW
    low = a0 * b0
    cross = a1 * b0 + (low >> _32)
    other = a0 * b1 + (cross & _LOW)
    high = a1 * b1 + (cross >> _32) + (other >> _32)
    return high, (other << _32) | (low & _LOW)


# --- tokens -----------------------------------------------------------------------------------


@inlined
def _digit(c: int) -> bool:
    return _ZERO <= c <= _NINE


@inlined
def _stands(text: Bytes, i: int, word: Bytes) -> bool:
    j = 0  # no word has a newline: none is left behind
    while j < len(word) and byte(text, i + j) == word[j]:
        j += 1
    return j == len(word)


@inlined
def _which(text: Bytes, begin: int, end: int) -> int:
    """Which field is named there, -1 for none."""
    for field in range(len(_NAME_ENDS) - 1):
        first = _NAME_ENDS[field]
        if _NAME_ENDS[field + 1] - first == end - begin:
            j = begin
            while j < end and byte(text, j) == _NAMES[first + j - begin]:
                j += 1
            if j == end:
                return field
    return -1


@inlined
def _behind_text(text: Bytes, i: int) -> int:
    """Behind the text that begins at i; -1 where it has an escape or does not end."""
    i += 1
    while byte(text, i) != _QUOTE:
        if byte(text, i) in (_BACKSLASH, _NEWLINE):
            return -1
        i += 1
    return i + 1


@compiled
def _behind(text: Bytes, i: int) -> int:
    """Behind the value that begins at i; -1 where it does not end."""
    depth = 0
    while True:
        c = byte(text, i)
        if c == _QUOTE:
            i += 1
            while byte(text, i) != _QUOTE:
                i += byte(text, i) == _BACKSLASH
                if byte(text, i) == _NEWLINE:
                    return -1
                i += 1
        elif c == _NEWLINE:
            return -1
        elif c in (_OPEN_ARRAY, _OPEN_OBJECT):
            depth += 1
        elif depth and c in (_CLOSE_ARRAY, _CLOSE_OBJECT):
            depth -= 1
        elif not depth:
            while byte(text, i) not in (_COMMA, _CLOSE_OBJECT, _NEWLINE):
                i += 1
            return i
        i += 1
        if not depth and byte(text, i) in (_COMMA, _CLOSE_OBJECT):
            return i


@inlined
def _u32(room: Bytes, at: int, value: int) -> int:
    for shift in (24, 16, 8, 0):
        room[at] = (value >> shift) & 255
        at += 1
    return at


@compiled
def _key(text: Bytes, begin: int, end: int, key: NDArray[np.uint64]) -> int:
    """Write the key of many hex digits: HEX. TEXT for others, LEFT where there is an escape."""
    kind = HEX if end - begin >= _HEX_DIGITS else TEXT
    for i in range(begin, end):
        if byte(text, i) == _BACKSLASH:
            return LEFT
        c = byte(text, i) | 32
        letter = _SMALL_A <= c < _SMALL_A + 6
        if not (letter or _digit(byte(text, i))):
            kind = TEXT
        if i - begin < _HEX_DIGITS:
            value = c - _SMALL_A + 10 if letter else c - _ZERO
            half = (i - begin) >> 4
            key[half] = (key[half] << np.uint64(4)) | np.uint64(value)
    return kind
