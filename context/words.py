"""Eight bytes of a text at once, for compiled loops.

What is found in a word is found by its lowest byte, the first of the text: a borrow or a carry of
these formulas only reaches the bytes above the one that it comes from (Warren, Hacker's Delight,
2nd edition, 6-1). Nothing here looks where it reads: whoever calls knows that the bytes are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.cgutils import raw_memcpy, true_bit
from numba.extending import intrinsic

from context.compiled import inlined

_LOWS = 0x0101010101010101
_LOW, _HIGH = np.uint64(_LOWS), np.uint64(0x80 * _LOWS)
_BLANKS, _QUOTES = np.uint64(0x20 * _LOWS), np.uint64(ord('"') * _LOWS)
_BACKSLASHES, _ZEROS = np.uint64(ord("\\") * _LOWS), np.uint64(ord("0") * _LOWS)
_ABOVE_NINE = np.uint64((0x80 - 10) * _LOWS)
_FIRST = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)


def packed(word: bytes) -> tuple[np.uint64, np.uint64]:
    """At most 16 bytes as the two words that `first` gives of them."""
    both = int.from_bytes(word, "little")
    return np.uint64(both & ((1 << 64) - 1)), np.uint64(both >> 64)


def _primitive(code: Callable[..., Any]) -> Any:
    """What loops call with all but the first of these arguments, as instructions in its place."""
    return intrinsic(code)


@_primitive
def byte(typingctx: Any, text: Any, i: Any) -> Any:
    """The byte at i, an int; unlike `text[i]` it does not ask whether i is negative."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = builder.load(_place(context, builder, signature, args))
        return builder.zext(one, context.get_value_type(types.int64))

    return types.int64(text, i), code


@_primitive
def word(typingctx: Any, text: Any, i: Any) -> Any:
    """The 8 bytes from i on, the first of them lowest."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(types.uint64).as_pointer()
        eight = builder.bitcast(_place(context, builder, signature, args), kind)
        return builder.load(eight, align=1)

    return types.uint64(text, i), code


@_primitive
def copy(  # noqa: PLR0917 - compiled
    typingctx: Any, text: Any, begin: Any, count: Any, room: Any, at: Any
) -> Any:
    """Copy so many bytes of the text to `at` in the room."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        source = _place(context, builder, types.void(kinds[0], kinds[1]), args[:2])
        target = _place(context, builder, types.void(kinds[3], kinds[4]), args[3:])
        raw_memcpy(builder, target, source, args[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(text, begin, count, room, at), code


@_primitive
def place(typingctx: Any, found: Any) -> Any:
    """Which byte of a word is the lowest one with a mark."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.lshr(builder.cttz(args[0], true_bit), context.get_constant(types.int64, 3))

    return types.int64(found), code


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@inlined
def first(eight: np.uint64, count: int) -> np.uint64:
    """A word's first bytes, at most 8, with zeros behind them."""
    kept: np.uint64 = eight & _FIRST[count]
    return kept


@inlined
def special(eight: np.uint64) -> np.uint64:
    """Marks quotes, backslashes and control characters: what strings of JSON end or change at."""
    quote, backslash = eight ^ _QUOTES, eight ^ _BACKSLASHES
    return (
        ((quote - _LOW) & ~quote) | ((backslash - _LOW) & ~backslash) | ((eight - _BLANKS) & ~eight)
    ) & _HIGH


@inlined
def no_digit(eight: np.uint64) -> np.uint64:
    """Marks what is no decimal digit."""
    value = eight ^ _ZEROS
    return ((value + _ABOVE_NINE) | value) & _HIGH
