"""One pass over NDJSON that checks each item and copies it as a line; compiled.

It knows the usual only: the fields of an item in the order of a line without white space between,
numbers and escapes that a line keeps as they are, the rules of the built-in types. Where it meets
anything else it gives up, and the text is judged elsewhere. What it takes is JSON (RFC 8259) and
passes `context.types`.

No token runs over a newline, so where one ends the text nothing reads past it. Everything is put
into one loop of machine code: a call would cost more than most of what is called.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from context.compiled import compiled, inlined

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]

TYPE, SOURCE, SYMBOL = 0, 1, 2  # rows of codes and names
MAX_NAMES = 2048  # distinct texts of one row
SLOTS = 4 * MAX_NAMES
LATEST = 1e11  # unix seconds: the year 5138. Milliseconds of today are larger
_MAX_DEPTH = 60
_MAX_NUMBER, _MAX_EXPONENT = 200, 2  # a number of so many digits, and "e+99" behind, is finite
_EXACT, _POWER = 1 << 53, 1e22  # whole numbers and powers of ten that floats hold exactly

_NEWLINE, _BLANK, _QUOTE = 10, 32, 34
_PLUS, _COMMA, _MINUS, _POINT, _ZERO, _ONE, _NINE, _COLON = 43, 44, 45, 46, 48, 49, 57, 58
_BIG_E, _OPEN_ARRAY, _BACKSLASH, _CLOSE_ARRAY, _SMALL_E = 69, 91, 92, 93, 101
_SMALL_F, _SMALL_N, _SMALL_R, _SMALL_T = 102, 110, 114, 116
_OPEN_OBJECT, _CLOSE_OBJECT = 123, 125
_SLOT = np.uint64(SLOTS - 1)
_HASH_START, _HASH_TIMES = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a

# kinds of values
_TEXT, _ESCAPED, _NUMBER, _NULL, _BOOL, _OBJECT, _ARRAY = 1, 2, 3, 4, 5, 6, 7


def _table(*words: bytes) -> tuple[Bytes, Ints]:
    """Words one behind the other, and where each ends, with a 0 in front."""
    return (
        np.frombuffer(b"".join(words), dtype=np.uint8),
        np.cumsum([0, *(len(word) for word in words)]),
    )


_FIELDS, _FIELD_ENDS = _table(
    b'{"type":', b',"source":', b',"timestamp":', b',"data":', b',"metadata":'
)
_F_TYPE, _F_SOURCE, _F_TIMESTAMP, _F_DATA, _F_METADATA = 0, 1, 2, 3, 4
_WORDS, _WORD_ENDS = _table(b"null", b"true", b"false")
_TYPES, _TYPE_ENDS = _table(b"trading_data", b"tensor_math", b"ai_decision", b"system_health")
_TRADE, _TENSOR, _DECISION, _OTHER = 0, 1, 2, -1
_KEYS, _KEY_ENDS = _table(
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
)
_K_SYMBOL, _K_PRICE, _K_VOLUME, _K_CALCULATION, _K_RESULT, _K_HASH, _K_MEANING = range(7)
_K_CONFIDENCE, _K_MODEL, _K_DECISION_ID, _K_DECISION, _K_REASONING, _K_IMPACT = range(7, 13)


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
) -> tuple[int, int, int]:
    """Items and bytes written to `room`, and how many `times` are nan; items are -1 where anything
    is unusual.

    Parameters
    ----------
    text : lines of `size` bytes, the last a newline, and behind them what `tails` tells of
    tails : (3,), begins and end of `,"source":"unknown"` and `,"timestamp":` with the time now
    room : for the lines, as long as `text` and both tails more an item
    times : (items,); nan where the text at `stamps` is to be read with more care
    stamps : (items, 2), begin and end in `text`
    ends : (items,) of the lines in `room`, before their newlines
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
    i, at, item, doubtful = 0, 0, 0, 0
    while i < size:
        copied = i
        i = _field(text, i, _F_TYPE)
        if i < 0:
            return -1, 0, 0
        begin = i
        i, kind = _scalar(text, i)
        if i < 0 or kind != _TEXT:
            return -1, 0, 0
        code = _code(text, begin + 1, i - 1, slots, names, TYPE)
        if code < 0:
            return -1, 0, 0
        codes[TYPE, item] = code
        if names[TYPE, code, 0] == begin + 1:
            kinds[code] = _which(text, begin + 1, i - 1, _TYPES, _TYPE_ENDS)
        rules = kinds[code]

        begin, end = tails[0] + len(',"source":'), tails[1]
        behind = _field(text, i, _F_SOURCE)
        if behind >= 0:
            begin = behind
            i, kind = _scalar(text, begin)
            if i < 0 or kind != _TEXT:
                return -1, 0, 0
            end = i
        else:
            at = _copy(text, copied, i, room, at)
            at = _copy(text, tails[0], tails[1], room, at)
            copied = i
        code = _code(text, begin + 1, end - 1, slots, names, SOURCE)
        if code < 0:
            return -1, 0, 0
        codes[SOURCE, item] = code

        begin, end = tails[1] + len(',"timestamp":'), tails[2]
        behind = _field(text, i, _F_TIMESTAMP)
        if behind >= 0:
            begin = behind
            i, kind = _scalar(text, begin)
            if i < 0 or kind != _NUMBER:
                return -1, 0, 0
            end = i
        else:
            at = _copy(text, copied, i, room, at)
            at = _copy(text, tails[1], tails[2], room, at)
            copied = i
        stamps[item, 0], stamps[item, 1] = begin, end
        time = _exactly(text, begin, end)
        if time != time:  # noqa: PLR0124 - nan
            doubtful += 1
        elif not -LATEST <= time <= LATEST:
            return -1, 0, 0
        times[item] = time

        i = _field(text, i, _F_DATA)
        if i < 0:
            return -1, 0, 0
        i, begin, end = _data(text, i, rules)
        if i < 0:
            return -1, 0, 0
        codes[SYMBOL, item] = -1
        if begin >= 0:
            code = _code(text, begin, end, slots, names, SYMBOL)
            if code < 0:
                return -1, 0, 0
            codes[SYMBOL, item] = code

        behind = _field(text, i, _F_METADATA)
        if behind >= 0:
            if text[behind] != _OPEN_OBJECT:
                return -1, 0, 0
            i = _container(text, behind)
            if i < 0:
                return -1, 0, 0
        if text[i] != _CLOSE_OBJECT or text[i + 1] != _NEWLINE:
            return -1, 0, 0
        i += 2
        at = _copy(text, copied, i, room, at)
        ends[item] = at - 1
        item += 1
    return item, at, doubtful


@inlined
def _data(text: Bytes, i: int, rules: int) -> tuple[int, int, int]:  # noqa: PLR0912
    """Behind the object at i; and where its symbol stands, -1 where it has none."""
    symbol, end, seen, first = -1, -1, 0, i + 1
    if text[i] != _OPEN_OBJECT:
        return -1, 0, 0
    i += 1
    while text[i] != _CLOSE_OBJECT:
        if i > first:
            if text[i] != _COMMA:
                return -1, 0, 0
            i += 1
        begin = i + 1
        if text[i] != _QUOTE:
            return -1, 0, 0
        i, kind = _text(text, i)
        if i < 0 or kind != _TEXT or text[i] != _COLON:
            return -1, 0, 0
        key = _which(text, begin, i - 1, _KEYS, _KEY_ENDS)
        i += 1
        begin = i
        if text[i] == _OPEN_OBJECT or text[i] == _OPEN_ARRAY:
            kind = _OBJECT if text[i] == _OPEN_OBJECT else _ARRAY
            i = _container(text, i)
        else:
            i, kind = _scalar(text, i)
        if i < 0:
            return -1, 0, 0
        if key >= 0:
            if seen >> key & 1 or not _allowed(rules, key, kind, text, begin, i):
                return -1, 0, 0
            seen |= 1 << key
            if key == _K_SYMBOL and kind == _TEXT:
                symbol, end = begin + 1, i - 1
    if not _complete(rules, seen, i - first):
        return -1, 0, 0
    return i + 1, symbol, end


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
        return kind == _NUMBER and text[begin] != _MINUS
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
def _container(text: Bytes, i: int) -> int:  # noqa: PLR0912 - no recursion: depth costs no stack
    """Behind the object or array that begins at i, -1 where it is none."""
    depth, objects = 0, np.uint64(0)  # a bit for each level that is open, the innermost lowest
    one = np.uint64(1)
    while True:
        c = text[i]
        named = False
        if c in (_OPEN_OBJECT, _OPEN_ARRAY):
            depth += 1
            if depth > _MAX_DEPTH:
                return -1
            objects = (objects << one) | (one if c == _OPEN_OBJECT else np.uint64(0))
            i += 1
            if text[i] != c + 2:  # the sign that closes it
                named = c == _OPEN_OBJECT
                if not named:
                    continue
        else:
            i, _ = _scalar(text, i)
            if i < 0:
                return -1
        while not named:
            c = text[i]
            i += 1
            inside = (objects & one) == one
            if c == (_CLOSE_OBJECT if inside else _CLOSE_ARRAY):
                depth -= 1
                objects >>= one
                if depth == 0:
                    return i
            elif c == _COMMA:
                if not inside:
                    break
                named = True
            else:
                return -1
        if named:
            if text[i] != _QUOTE:
                return -1
            i, _ = _text(text, i)
            if i < 0 or text[i] != _COLON:
                return -1
            i += 1


@inlined
def _scalar(text: Bytes, i: int) -> tuple[int, int]:
    """Behind the text, number, null or truth that begins at i, and its kind; i is -1 for others."""
    c = text[i]
    if c == _QUOTE:
        return _text(text, i)
    if c == _MINUS or _digit(c):
        return _number(text, i), _NUMBER
    for word in range(3):
        begin, end = _WORD_ENDS[word], _WORD_ENDS[word + 1]
        if c == _WORDS[begin]:
            for j in range(begin, end):
                if text[i + j - begin] != _WORDS[j]:
                    return -1, 0
            return i + end - begin, _BOOL if word else _NULL
    return -1, 0


@inlined
def _text(text: Bytes, i: int) -> tuple[int, int]:
    """Behind the string that begins at i; i is -1 where a line would have it in another form."""
    kind = _TEXT
    i += 1
    while text[i] != _QUOTE:
        c = text[i]
        if c < _BLANK:
            return -1, 0
        if c == _BACKSLASH:
            kind = _ESCAPED
            i += 1
            if text[i] not in (_QUOTE, _BACKSLASH, _SMALL_N, _SMALL_R, _SMALL_T):
                return -1, 0
        i += 1
    return i + 1, kind


@inlined
def _number(text: Bytes, i: int) -> int:
    """Behind the number that begins at i; -1 where it is none or may not be finite."""
    begin = i
    if text[i] == _MINUS:
        i += 1
    first = i
    i = _digits(text, i)
    if i == first or (text[first] == _ZERO and i > first + 1):
        return -1
    if text[i] == _POINT:
        first = i + 1
        i = _digits(text, first)
        if i == first:
            return -1
    if i - begin > _MAX_NUMBER:
        return -1
    if text[i] == _SMALL_E or text[i] == _BIG_E:
        i += 1
        if text[i] == _PLUS or text[i] == _MINUS:
            i += 1
        first = i
        i = _digits(text, i)
        if i == first or i - first > _MAX_EXPONENT:
            return -1
    return i


@inlined
def _exactly(text: Bytes, begin: int, end: int) -> float:
    """The number that stands there, nan where floats alone may not get its last bit right."""
    sign, mantissa, power, point = 1.0, 0, 1.0, False
    for i in range(begin, end):
        c = text[i]
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
    first = text[begin]
    for i in range(begin + 1, end):
        c = text[i]
        if not (c == _POINT or _digit(c)) or (first == _ONE and c > _ZERO):
            return False
    return first == _ZERO or (first == _ONE and (end == begin + 1 or text[begin + 1] == _POINT))


# --- tokens -----------------------------------------------------------------------------------


@inlined
def _digit(c: int) -> bool:
    return _ZERO <= c <= _NINE


@inlined
def _digits(text: Bytes, i: int) -> int:
    while _digit(text[i]):
        i += 1
    return i


@inlined
def _copy(text: Bytes, begin: int, end: int, room: Bytes, at: int) -> int:
    for i in range(end - begin):
        room[at + i] = text[begin + i]
    return at + end - begin


@inlined
def _field(text: Bytes, i: int, field: int) -> int:
    """Where the value of the field begins if it is named at i, else -1."""
    first, last = _FIELD_ENDS[field], _FIELD_ENDS[field + 1]
    for j in range(first, last):
        if text[i + j - first] != _FIELDS[j]:
            return -1
    return int(i + last - first)


@inlined
def _which(text: Bytes, begin: int, end: int, words: Bytes, ends: Ints) -> int:
    """Which of the words stands there, -1 for none."""
    for word in range(len(ends) - 1):
        first = ends[word]
        if ends[word + 1] - first == end - begin and text[begin] == words[first]:
            j = begin
            while j < end and text[j] == words[first + j - begin]:
                j += 1
            if j == end:
                return word
    return -1


@inlined
def _code(  # noqa: PLR0917 - compiled
    text: Bytes, begin: int, end: int, slots: Codes, names: Ints, row: int
) -> int:
    """Number of the text that stands there, a new one where it is new; -1 for too many."""
    hashed = _HASH_START
    for i in range(begin, end):
        hashed = (hashed ^ np.uint64(text[i])) * _HASH_TIMES
    slot = np.int64(hashed & _SLOT)
    while slots[row, slot]:
        code = slots[row, slot] - 1
        first = names[row, code, 0]
        if names[row, code, 1] - first == end - begin:
            j = begin
            while j < end and text[j] == text[first + j - begin]:
                j += 1
            if j == end:
                return int(code)
        slot = (slot + 1) % SLOTS
    code = names[row, MAX_NAMES, 0]
    if code == MAX_NAMES:
        return -1
    names[row, MAX_NAMES, 0] += 1
    names[row, code, 0], names[row, code, 1], names[row, code, 2] = begin, end, slot
    slots[row, slot] = code + 1
    return int(code)
