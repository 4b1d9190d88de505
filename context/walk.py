"""One pass over NDJSON that checks each item and copies it as a line; compiled.

It knows the usual only: the fields of an item in the order of a line without white space between,
numbers and escapes that a line keeps as they are, the rules of the built-in types. Where it meets
anything else it gives up, and the text is judged elsewhere. What it takes is JSON (RFC 8259) and
passes `context.types`.

No token runs over a newline, so where one ends the text nothing is looked for past it; `tails`
are behind it, so that whole words can be read there. Everything is put into one loop of machine
code: a call would cost more than most of what is called.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from context.compiled import compiled, inlined
from context.words import byte, copy, first, no_digit, packed, place, special, word

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Words = NDArray[np.uint64]

TYPE, SOURCE, SYMBOL = 0, 1, 2  # rows of codes and names
MAX_NAMES = 2048  # distinct texts of one row
SLOTS = 4 * MAX_NAMES
LATEST = 1e11  # unix seconds: the year 5138. Milliseconds of today are larger
_MAX_DEPTH = 60
_MAX_NUMBER, _MAX_EXPONENT = 200, 2  # a number of so many digits, and "e+99" behind, is finite
_EXACT, _POWER = 1 << 53, 1e22  # whole numbers and powers of ten that floats hold exactly

_NEWLINE, _QUOTE = 10, 34
_PLUS, _COMMA, _MINUS, _POINT, _ZERO, _ONE, _NINE, _COLON = 43, 44, 45, 46, 48, 49, 57, 58
_BIG_E, _OPEN_ARRAY, _BACKSLASH, _CLOSE_ARRAY, _SMALL_E = 69, 91, 92, 93, 101
_SMALL_N, _SMALL_R, _SMALL_T = 110, 114, 116
_OPEN_OBJECT, _CLOSE_OBJECT = 123, 125
_SLOT = np.uint64(SLOTS - 1)
_HASH_START, _HASH_TIMES = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

# kinds of values
_TEXT, _ESCAPED, _NUMBER, _NULL, _BOOL, _OBJECT, _ARRAY = 1, 2, 3, 4, 5, 6, 7


def _table(*names: bytes) -> tuple[Words, Words, Ints]:
    """Names of at most 16 bytes: the first 8 of each, the others, and how many they are."""
    low, high = np.array([packed(name) for name in names], dtype=np.uint64).T
    return low.copy(), high.copy(), np.array([len(name) for name in names])


_FIELDS, _FIELDS_ON, _FIELD_SIZES = _table(
    b'{"type":', b',"source":', b',"timestamp":', b',"data":', b',"metadata":'
)
_F_TYPE, _F_SOURCE, _F_TIMESTAMP, _F_DATA, _F_METADATA = 0, 1, 2, 3, 4
_WORDS, _WORD_SIZES = _table(b"null", b"true", b"false")[::2]
_TYPES, _TYPES_ON = _table(b"trading_data", b"tensor_math", b"ai_decision", b"system_health")[:2]
_TRADE, _TENSOR, _DECISION, _OTHER = 0, 1, 2, -1
_KEYS, _KEYS_ON = _table(
    b"symbol",
    b"price",
    b"volume",
    b"calculation_id",
    b"result",
    b"hash_value",
    b"context_meaning",
    b"confidence",
    b"model",
    b"decision_id",
    b"decision",
    b"reasoning",
    b"impact",
    b"chain",
)[:2]
_K_SYMBOL, _K_PRICE, _K_VOLUME, _K_CALCULATION, _K_RESULT, _K_HASH, _K_MEANING = range(7)
_K_CONFIDENCE, _K_MODEL, _K_DECISION_ID, _K_DECISION, _K_REASONING, _K_IMPACT, _K_CHAIN = range(
    7, 14
)


@compiled
def walk(  # noqa: PLR0912, PLR0915, PLR0917 - all in one loop, room made outside
    text: Bytes,
    size: int,
    tails: Ints,
    room: Bytes,
    times: NDArray[np.float64],
    stamps: Ints,
    ends: Codes,
    codes: Codes,
    slots: Codes,
    names: Ints,
    kinds: Codes,
) -> tuple[int, int, int, bool]:
    """Items, bytes of their lines, how many `times` are nan, and whether a key is `chain`; items
    are -1 where anything is unusual. Lines that are as long as the text are the text, and nothing
    is written to `room`.

    Parameters
    ----------
    text : lines of `size` bytes, the last a newline, and behind them what `tails` tells of
    tails : (3,), begins and end of `,"source":"unknown"` and `,"timestamp":` with the time now
    room : for the lines, as long as `text` and both tails more an item
    times : (items,); nan where the text at `stamps` is to be read with more care
    stamps : (items, 2), begin and end in `text`
    ends : (items,) of the lines, before their newlines
    codes : (3, items) of types, sources and symbols; -1 for none
    slots : (3, SLOTS), zeros, or as the walk before left them together with `names`
    names : (3, MAX_NAMES + 1, 3), begin and end in `text` of each code's text, and its slot; the
        last row of each holds how many there are
    kinds : (MAX_NAMES,) of each type; OTHER where no rule is known here
    """
    for row in range(3):
        for code in range(names[row, MAX_NAMES, 0]):
            slots[row, names[row, code, 2]] = 0
        names[row, MAX_NAMES, 0] = 0
    i, copied, more, item, doubtful = 0, 0, 0, 0, 0  # `more` bytes were put between those copied
    chains = False
    while i < size:
        i = _field(text, i, _F_TYPE)
        if i < 0:
            return -1, 0, 0, False
        begin = i
        i, kind = _scalar(text, i)
        if i < 0 or kind != _TEXT:
            return -1, 0, 0, False
        code = _code(text, begin + 1, i - 1, slots, names, TYPE)
        if code < 0:
            return -1, 0, 0, False
        codes[TYPE, item] = code
        if names[TYPE, code, 0] == begin + 1:
            kinds[code] = _which(text, begin + 1, i - 1, _TYPES, _TYPES_ON)
        rules = kinds[code]

        begin, end = tails[0] + len(',"source":'), tails[1]
        behind = _field(text, i, _F_SOURCE)
        if behind >= 0:
            begin = behind
            i, kind = _scalar(text, begin)
            if i < 0 or kind != _TEXT:
                return -1, 0, 0, False
            end = i
        else:
            copied, more = _insert(text, copied, i, room, more, tails[0], tails[1])
        code = _code(text, begin + 1, end - 1, slots, names, SOURCE)
        if code < 0:
            return -1, 0, 0, False
        codes[SOURCE, item] = code

        begin, end = tails[1] + len(',"timestamp":'), tails[2]
        behind = _field(text, i, _F_TIMESTAMP)
        if behind >= 0:
            begin = behind
            i, kind = _scalar(text, begin)
            if i < 0 or kind != _NUMBER:
                return -1, 0, 0, False
            end = i
        else:
            copied, more = _insert(text, copied, i, room, more, tails[1], tails[2])
        stamps[item, 0], stamps[item, 1] = begin, end
        time = _exactly(text, begin, end)
        if time != time:  # noqa: PLR0124 - nan
            doubtful += 1
        elif not -LATEST <= time <= LATEST:
            return -1, 0, 0, False
        times[item] = time

        i = _field(text, i, _F_DATA)
        if i < 0:
            return -1, 0, 0, False
        i, begin, end, chained = _data(text, i, rules)
        chains |= chained
        if i < 0:
            return -1, 0, 0, False
        codes[SYMBOL, item] = -1
        if begin >= 0:
            code = _code(text, begin, end, slots, names, SYMBOL)
            if code < 0:
                return -1, 0, 0, False
            codes[SYMBOL, item] = code

        behind = _field(text, i, _F_METADATA)
        if behind >= 0:
            if byte(text, behind) != _OPEN_OBJECT:
                return -1, 0, 0, False
            i, chained = _container(text, behind)
            chains |= chained
            if i < 0:
                return -1, 0, 0, False
        if byte(text, i) != _CLOSE_OBJECT or byte(text, i + 1) != _NEWLINE:
            return -1, 0, 0, False
        i += 2
        ends[item] = i - 1 + more
        item += 1
    if more:
        copy(text, copied, size - copied, room, copied + more)
    return item, size + more, doubtful, chains


@inlined
def _insert(  # noqa: PLR0917 - compiled
    text: Bytes, copied: int, i: int, room: Bytes, more: int, begin: int, end: int
) -> tuple[int, int]:
    """Copy what stands before i, and put a tail behind that."""
    copy(text, copied, i - copied, room, copied + more)
    copy(text, begin, end - begin, room, i + more)
    return i, more + end - begin


@inlined
def _data(text: Bytes, i: int, rules: int) -> tuple[int, int, int, bool]:  # noqa: PLR0912
    """Behind the object at i; where its symbol stands, -1 where it has none; and whether it has a
    key `chain`."""
    symbol, end, seen, start = -1, -1, 0, i + 1
    chained = False
    if byte(text, i) != _OPEN_OBJECT:
        return -1, 0, 0, False
    i += 1
    while byte(text, i) != _CLOSE_OBJECT:
        if i > start:
            if byte(text, i) != _COMMA:
                return -1, 0, 0, False
            i += 1
        begin = i + 1
        if byte(text, i) != _QUOTE:
            return -1, 0, 0, False
        i, kind = _text(text, i)
        if i < 0 or kind != _TEXT or byte(text, i) != _COLON:
            return -1, 0, 0, False
        key = _which(text, begin, i - 1, _KEYS, _KEYS_ON)
        i += 1
        begin = i
        if byte(text, i) == _OPEN_OBJECT or byte(text, i) == _OPEN_ARRAY:
            kind = _OBJECT if byte(text, i) == _OPEN_OBJECT else _ARRAY
            i, inner = _container(text, i)
            chained |= inner
        else:
            i, kind = _scalar(text, i)
        if i < 0:
            return -1, 0, 0, False
        if key >= 0:
            if seen >> key & 1 or not _allowed(rules, key, kind, text, begin, i):
                return -1, 0, 0, False
            seen |= 1 << key
            if key == _K_SYMBOL and kind == _TEXT:
                symbol, end = begin + 1, i - 1
    if not _complete(rules, seen, i - start):
        return -1, 0, 0, False
    return i + 1, symbol, end, chained or bool(seen >> _K_CHAIN & 1)


@inlined
def _allowed(  # noqa: PLR0917 - a table of rules
    rules: int, key: int, kind: int, text: Bytes, begin: int, end: int
) -> bool:
    """Whether the field may have this value in an item of this kind."""
    if key == _K_SYMBOL:
        if rules == _TRADE:
            return kind == _TEXT and end - begin > 2
        return kind != _ESCAPED
    if rules == _TRADE and (key in (_K_PRICE, _K_VOLUME)):
        return kind == _NUMBER and byte(text, begin) != _MINUS
    if rules in (_TENSOR, _DECISION) and key == _K_CONFIDENCE:
        return kind == _NUMBER and _share(text, begin, end)
    if rules == _TENSOR:
        if key in (_K_HASH, _K_MEANING):
            return kind in (_TEXT, _ESCAPED)
        return key != _K_CALCULATION or kind != _NULL
    if rules == _DECISION:
        if key in (_K_MODEL, _K_DECISION_ID, _K_DECISION):
            return kind != _NULL
        if key == _K_REASONING:
            return kind in (_TEXT, _ESCAPED)
        return key != _K_IMPACT or kind == _NUMBER
    return True


@inlined
def _complete(rules: int, seen: int, size: int) -> bool:
    """Whether the fields that were seen are enough for an item of this kind."""
    if rules == _TRADE:
        return bool(seen >> _K_SYMBOL & 1 and seen >> _K_PRICE & 1)
    if rules == _TENSOR:
        return bool(seen >> _K_CALCULATION & 1 and seen >> _K_RESULT & 1)
    if rules == _DECISION:
        by = seen >> _K_MODEL & 1 or seen >> _K_DECISION_ID & 1
        return bool(by and seen >> _K_DECISION & 1)
    return size > 0 or rules == _OTHER


# --- values -----------------------------------------------------------------------------------


@compiled
def _container(text: Bytes, i: int) -> tuple[int, bool]:  # noqa: PLR0912 - no recursion: depth costs no stack
    """Behind the object or array that begins at i, -1 where it is none; whether a key in there is
    `chain`."""
    depth, objects = 0, np.uint64(0)  # a bit for each level that is open, the innermost lowest
    one, chained = np.uint64(1), False
    while True:
        c = byte(text, i)
        named = False
        if c in (_OPEN_OBJECT, _OPEN_ARRAY):
            depth += 1
            if depth > _MAX_DEPTH:
                return -1, False
            objects = (objects << one) | (one if c == _OPEN_OBJECT else np.uint64(0))
            i += 1
            if byte(text, i) != c + 2:  # the sign that closes it
                named = c == _OPEN_OBJECT
                if not named:
                    continue
        else:
            i, _ = _scalar(text, i)
            if i < 0:
                return -1, False
        while not named:
            c = byte(text, i)
            i += 1
            inside = (objects & one) == one
            if c == (_CLOSE_OBJECT if inside else _CLOSE_ARRAY):
                depth -= 1
                objects >>= one
                if depth == 0:
                    return i, chained
            elif c == _COMMA:
                if not inside:
                    break
                named = True
            else:
                return -1, False
        if named:
            if byte(text, i) != _QUOTE:
                return -1, False
            begin = i + 1
            i, _ = _text(text, i)
            if i < 0 or byte(text, i) != _COLON:
                return -1, False
            chained |= _which(text, begin, i - 1, _KEYS, _KEYS_ON) == _K_CHAIN
            i += 1


@inlined
def _scalar(text: Bytes, i: int) -> tuple[int, int]:
    """Behind the text, number, null or truth that begins at i, and its kind; i is -1 for others."""
    c = byte(text, i)
    if c == _QUOTE:
        return _text(text, i)
    if c == _MINUS or _digit(c):
        return _number(text, i), _NUMBER
    eight = word(text, i)
    for each in range(3):
        if first(eight, _WORD_SIZES[each]) == _WORDS[each]:
            return i + _WORD_SIZES[each], _BOOL if each else _NULL
    return -1, 0


@inlined
def _text(text: Bytes, i: int) -> tuple[int, int]:
    """Behind the string that begins at i; i is -1 where a line would have it in another form."""
    kind = _TEXT
    i += 1
    while True:
        found = special(word(text, i))
        if not found:
            i += 8
            continue
        i += place(found)
        c = byte(text, i)
        if c == _QUOTE:
            return i + 1, kind
        if c != _BACKSLASH:
            return -1, 0
        kind = _ESCAPED
        if byte(text, i + 1) not in (_QUOTE, _BACKSLASH, _SMALL_N, _SMALL_R, _SMALL_T):
            return -1, 0
        i += 2


@inlined
def _number(text: Bytes, i: int) -> int:
    """Behind the number that begins at i; -1 where it is none or may not be finite."""
    begin = i
    if byte(text, i) == _MINUS:
        i += 1
    start = i
    i = _digits(text, i)
    if i == start or (byte(text, start) == _ZERO and i > start + 1):
        return -1
    if byte(text, i) == _POINT:
        start = i + 1
        i = _digits(text, start)
        if i == start:
            return -1
    if i - begin > _MAX_NUMBER:
        return -1
    if byte(text, i) == _SMALL_E or byte(text, i) == _BIG_E:
        i += 1
        if byte(text, i) == _PLUS or byte(text, i) == _MINUS:
            i += 1
        start = i
        i = _digits(text, i)
        if i == start or i - start > _MAX_EXPONENT:
            return -1
    return i


@inlined
def _exactly(text: Bytes, begin: int, end: int) -> float:
    """The number that stands there, nan where floats alone may not get its last bit right."""
    sign, mantissa, power, point = 1.0, 0, 1.0, False
    for i in range(begin, end):
        c = byte(text, i)
        if c == _MINUS and i == begin:
            sign = -1.0
        elif c == _POINT:
            point = True
        elif not _digit(c):
            return float(np.nan)
        else:
            mantissa = 10 * mantissa + (c - _ZERO)
            if mantissa > _EXACT:
                return float(np.nan)
            if point:
                power *= 10.0
    return sign * (mantissa / power) if power <= _POWER else float(np.nan)


@inlined
def _share(text: Bytes, begin: int, end: int) -> bool:
    """Whether a number is obviously from 0 to 1: 0.x without exponent, 1 or 1.0."""
    lead = byte(text, begin)
    for i in range(begin + 1, end):
        c = byte(text, i)
        if not (c == _POINT or _digit(c)) or (lead == _ONE and c > _ZERO):
            return False
    return lead == _ZERO or (lead == _ONE and (end == begin + 1 or byte(text, begin + 1) == _POINT))


# --- tokens -----------------------------------------------------------------------------------


@inlined
def _digit(c: int) -> bool:
    return _ZERO <= c <= _NINE


@inlined
def _digits(text: Bytes, i: int) -> int:
    while True:
        found = no_digit(word(text, i))
        if found:
            return int(i + place(found))
        i += 8


@inlined
def _field(text: Bytes, i: int, field: int) -> int:
    """Where the value of the field begins if it is named at i, else -1."""
    size = _FIELD_SIZES[field]
    if first(word(text, i), min(size, 8)) != _FIELDS[field]:
        return -1
    if size > 8 and first(word(text, i + 8), size - 8) != _FIELDS_ON[field]:
        return -1
    return int(i + size)


@inlined
def _which(text: Bytes, begin: int, end: int, names: Words, on: Words) -> int:
    """Which of the names stands there, -1 for none."""
    size = end - begin
    if size > 16:
        return -1
    low, high = (
        first(word(text, begin), min(size, 8)),
        first(word(text, begin + 8), max(size, 8) - 8),
    )
    for each in range(len(names)):
        if low == names[each] and high == on[each]:
            return each
    return -1


@inlined
def _code(  # noqa: PLR0917 - compiled
    text: Bytes, begin: int, end: int, slots: Codes, names: Ints, row: int
) -> int:
    """Number of the text that stands there, a new one where it is new; -1 for too many."""
    hashed = _HASH_START
    for i in range(begin, end, 8):
        hashed = (hashed ^ first(word(text, i), min(end - i, 8))) * _HASH_TIMES
        hashed ^= hashed >> _HALF
    slot = np.int64(hashed & _SLOT)
    while slots[row, slot]:
        code = slots[row, slot] - 1
        known = names[row, code, 0]
        if names[row, code, 1] - known == end - begin:
            i = begin
            while i < end and not first(
                word(text, i) ^ word(text, known + i - begin), min(end - i, 8)
            ):
                i += 8
            if i >= end:
                return int(code)
        slot = (slot + 1) % SLOTS
    code = names[row, MAX_NAMES, 0]
    if code == MAX_NAMES:
        return -1
    names[row, MAX_NAMES, 0] += 1
    names[row, code, 0], names[row, code, 1], names[row, code, 2] = begin, end, slot
    slots[row, slot] = code + 1
    return int(code)
