"""Hashed byte n-grams of a text as a bitmap: a text whose bitmap lacks a bit lacks the n-gram.

Two lengths are kept. Grams of 6 bytes tell event ids, hex digits and prices apart, where every
combination of 3 occurs in a megabyte; grams of 3 bytes serve literals that are shorter than 6.

Bytes are hashed with ASCII letters in lower case, so that one bitmap serves searches that mind case
and searches that do not. A gram never spans a newline: no match crosses a line.

The bytes of a gram are read as a big-endian number. With M = 0x9E3779B97F4A7C15 its bit is

    6 bytes:         ((number << 16) * M mod 2^64) >> 45      2^19 bits
    3 bytes:  2^19 + ((number << 40) * M mod 2^64) >> 46      2^18 bits

(Fibonacci hashing; Knuth, The Art of Computer Programming 3, section 6.4). Bit p of a bitmap is bit
`p & 7` of byte `p >> 3`.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from context.compiled import compiled

BITS = (1 << 19) + (1 << 18)
BITMAP_BYTES = BITS // 8

_NEWLINE = 10
_M = np.uint64(0x9E3779B97F4A7C15)
_SHIFT_6, _DOWN_6 = np.uint64(16), np.uint64(45)
_SHIFT_3, _DOWN_3 = np.uint64(40), np.uint64(46)
_FIRST_3 = np.uint64(1 << 19)
_BYTE = np.uint64(8)
_CASE = np.uint8(5)  # a small letter is its capital plus 1 << 5
_USUAL_TEXT = 2 << 20  # bytes


def positions(literal: bytes) -> list[int]:
    """Bits set for every text that holds the literal in any case; none where it is too short."""
    n = 6 if len(literal) >= 6 else 3
    if len(literal) < n:
        return []
    data = np.frombuffer(literal.lower(), dtype=np.uint8)
    grams = np.lib.stride_tricks.sliding_window_view(data, n)
    grams = grams[(grams != _NEWLINE).all(axis=1)].astype(np.uint64)
    # Weights put the first byte highest in the word, which is what the shift does to the number.
    numbers = (grams << np.arange(56, 56 - 8 * n, -8, dtype=np.uint64)).sum(1, dtype=np.uint64)
    bits = numbers * _M >> _DOWN_6 if n == 6 else (numbers * _M >> _DOWN_3) + _FIRST_3
    return [int(bit) for bit in np.unique(bits)]


class Hasher:
    """Makes bitmaps, for one thread at a time.

    Holds 3 MiB to work in, because fresh pages would cost more than the hashing. Making one loads
    the compiled loop, or compiles it (half a second, once on a machine): do that before the first
    block is due, in a thread.
    """

    def __init__(self) -> None:
        self._lower = np.empty(_USUAL_TEXT, dtype=np.uint8)
        self._flags = np.empty(BITS, dtype=np.uint8)
        with suppress(
            OSError
        ):  # a full disk may refuse the compiled loop, which works all the same
            self.bitmap(b"\n")

    def bitmap(self, text: bytes) -> NDArray[np.uint8]:
        """Which grams the text holds, (BITMAP_BYTES,); other threads run meanwhile."""
        if len(text) > len(self._lower):
            self._lower = np.empty(len(text), dtype=np.uint8)
        self._flags.fill(0)
        _mark(np.frombuffer(text, dtype=np.uint8), self._lower, self._flags)
        return np.packbits(self._flags, bitorder="little")


@compiled
def _mark(text: NDArray[np.uint8], lower: NDArray[np.uint8], flags: NDArray[np.uint8]) -> None:
    """Set `flags[p]` to 1 for each bit p of the text; `lower` is room for a copy of it.

    A byte for a bit, packed afterwards, is half as fast again as setting bits: a store then needs
    no load before it.
    """
    for i in range(len(text)):
        c = text[i]
        lower[i] = c + (np.uint8((c >= 65) & (c <= 90)) << _CASE)
    number, run = np.uint64(0), 0  # the last 8 bytes; how many bytes this line has so far
    for i in range(len(text)):
        c = lower[i]
        number = (number << _BYTE) | np.uint64(c)
        run += 1
        if c == _NEWLINE:
            run = 0
        if run >= 6:
            flags[(((number << _SHIFT_3) * _M) >> _DOWN_3) + _FIRST_3] = 1
            flags[((number << _SHIFT_6) * _M) >> _DOWN_6] = 1
        elif run >= 3:
            flags[(((number << _SHIFT_3) * _M) >> _DOWN_3) + _FIRST_3] = 1
