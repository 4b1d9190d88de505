"""The canonical hash of a tensor calculation, and the hashes by which an item can be found.

The hash is SHA-256 over bytes that docs/tensor-hash.md defines one by one. Equal values give equal
bytes however their numbers were written; there is no rounding and no text normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from struct import Struct, pack
from typing import Any

import msgspec
from msgspec import UNSET

from context.errors import ContextError, FieldError

KEY_BYTES = 16  # of a hash: what the registry tells hashes apart by
MAX_DEPTH = 64  # of arrays and objects, the hashed object being the first; deeper has no hash
_ROOM = MAX_DEPTH - 1
_VERSION = b"context-tensor/1\n"
_HEX = re.compile(r"[0-9a-fA-F]{6,}")
_LONG_HEX = re.compile(r"(?<![0-9a-zA-Z])[0-9a-fA-F]{32,128}(?![0-9a-zA-Z])")
_MAX_TEXT = 128  # longer texts in other items are not looked at as hashes
_SAFE = 1 << 53  # every integer up to here is a binary64
_NUMBERS, _FLOATS = {float, int}, {float}
_double = Struct(">cd").pack


def _text(value: str) -> bytes:
    raw = value.encode()
    return pack(">I", len(raw)) + raw


# The hashed object, whose three names are always the same: what comes before each value.
_INPUT, _OPERATION, _RESULT = map(_text, ("input_data", "operation", "result"))
_HEADS = [_VERSION + pack(">cI", b"O", count) for count in range(4)]


class Calculation(msgspec.Struct, gc=False):
    """What of a `tensor_math` item's data is hashed, and what it says about itself."""

    result: Any
    input_data: Any = UNSET
    operation: Any = UNSET
    calculation_id: Any = None
    hash_value: str | None = None
    context_meaning: str | None = None

    def canonical(self) -> bytes | None:
        """The 32 bytes of the canonical hash; None where the values are nested too deeply."""
        try:
            parts = [_RESULT, _value(self.result, _ROOM)]
            if self.operation is not UNSET:
                parts = [_OPERATION, _value(self.operation, _ROOM), *parts]
            if self.input_data is not UNSET:
                parts = [_INPUT, _value(self.input_data, _ROOM), *parts]
        except _TooDeep:
            return None
        return sha256(_HEADS[len(parts) // 2] + b"".join(parts)).digest()

    def hashes(self) -> list[str]:
        """Every hash that the item is found by: as sent, and canonical."""
        found = [self.hash_value] if self.hash_value else []
        own = self.canonical()
        return [*found, own.hex()] if own and own.hex() not in found else found


class TensorItem(msgspec.Struct, gc=False):
    """A line of type `tensor_math`."""

    data: Calculation


def key_of(text: str) -> bytes:
    """The first 16 bytes of a hash in hex; shorter hex is filled up, other text is hashed itself.

    Upper and lower case are the same in hex. The last byte tells shorter hex apart by its length.
    """
    if not _HEX.fullmatch(text):
        return sha256(text.encode()).digest()[:KEY_BYTES]
    if len(text) >= 2 * KEY_BYTES:
        return bytes.fromhex(text[: 2 * KEY_BYTES])
    return bytes.fromhex(text[:30].ljust(30, "0")) + bytes([len(text)])


def range_of(prefix: str) -> tuple[bytes, bytes] | None:
    """Lowest and highest key of hashes that begin so; None where it is not 6 hex digits or more."""
    if not _HEX.fullmatch(prefix):
        return None
    digits = prefix[: 2 * KEY_BYTES]
    return bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))


def named_in(line: bytes) -> list[str]:
    """Texts in a line that may be hashes: hex words of 32 digits or more, and short values."""
    item = msgspec.json.decode(line)
    values = [item["data"], item.get("metadata")]
    found: dict[str, None] = dict.fromkeys(_LONG_HEX.findall(line.decode()))
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and 0 < len(value) <= _MAX_TEXT:
            found[value] = None
    return list(found)


class AmbiguousHash(ContextError):
    """Several hashes begin so."""

    code = "ambiguous_hash"
    status = 409

    def __init__(self, prefix: str, matches: Sequence[tuple[str, str | None]]) -> None:
        self.hashes = [text for text, _ in matches]
        errors: list[FieldError] = [
            {"index": i, "field": "hash", "message": f"{text}: {meaning or 'no meaning told'}"}
            for i, (text, meaning) in enumerate(matches)
        ]
        super().__init__(f"several hashes begin with {prefix[:80]!r}; give more digits", errors)


class _TooDeep(Exception):
    pass


@dataclass(slots=True)
class _Tensor:
    """Numbers nested to a regular shape."""

    shape: tuple[int, ...]
    values: list[float]

    def encoded(self) -> bytes:
        rank, count = len(self.shape), len(self.values)
        values = [value + 0.0 for value in self.values]  # -0.0 + 0.0 is 0.0
        return pack(f">cB{rank}I{count}d", b"A", rank, *self.shape, *values)


def _value(value: Any, room: int) -> bytes:
    kind = type(value)
    if kind is float:
        return _double(b"D", value + 0.0)
    if kind is int:
        return _number(value)
    if kind is str:
        return b"S" + _text(value)
    if kind is list:
        if room and set(map(type, value)) == _FLOATS:  # by far the most frequent: takes a shortcut
            return _Tensor((len(value),), value).encoded()
        made = _array(value, room)
        return made.encoded() if isinstance(made, _Tensor) else made
    if kind is dict:
        return _object(value, room)
    return b"N" if value is None else b"T" if value else b"F"


def _number(value: float) -> bytes:
    if type(value) is int and not _exact(value):
        digits = str(value).encode()
        return pack(">cI", b"I", len(digits)) + digits
    return _double(b"D", value + 0.0)


def _exact(value: float) -> bool:
    """Whether a number is a binary64 without rounding."""
    if -_SAFE <= value <= _SAFE or type(value) is float:
        return True
    try:
        return float(value) == value
    except OverflowError:
        return False


def _array(values: list[Any], room: int) -> _Tensor | bytes:
    if not room:
        raise _TooDeep
    kinds = set(map(type, values))
    if kinds and kinds <= _NUMBERS:
        if (min(values) >= -_SAFE and max(values) <= _SAFE) or all(map(_exact, values)):
            return _Tensor((len(values),), values)
    elif kinds == {list}:
        rows = [_array(value, room - 1) for value in values]
        tensor = _stacked(rows)
        return tensor or _list([row.encoded() if isinstance(row, _Tensor) else row for row in rows])
    return _list([_value(value, room - 1) for value in values])


def _stacked(rows: list[_Tensor | bytes]) -> _Tensor | None:
    """One tensor of rows of equal shape."""
    tensors = [row for row in rows if isinstance(row, _Tensor)]
    shapes = {tensor.shape for tensor in tensors}
    if len(tensors) < len(rows) or len(shapes) > 1:
        return None
    values = list(chain.from_iterable(tensor.values for tensor in tensors))
    return _Tensor((len(rows), *shapes.pop()), values)


def _list(parts: list[bytes]) -> bytes:
    return pack(">cI", b"L", len(parts)) + b"".join(parts)


def _object(value: dict[str, Any], room: int) -> bytes:
    if not room:
        raise _TooDeep
    pairs = [_text(name) + _value(value[name], room - 1) for name in sorted(value)]
    return pack(">cI", b"O", len(pairs)) + b"".join(pairs)
