"""What is found in eight bytes at once is what looking at one byte after the other finds."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from context.compiled import compiled
from context.words import byte, copy, first, no_digit, packed, place, special, word

Bytes = NDArray[np.uint8]
SPECIAL, NO_DIGIT = re.compile(rb'["\\\x00-\x1f]'), re.compile(rb"[^0-9]")

around = st.binary(min_size=8, max_size=8)
likely = st.lists(st.sampled_from(b'09/:"\\\n\x1f !#[]a\x7f\x80\xff'), min_size=8, max_size=8)
eights = st.one_of(around, likely.map(bytes))


@compiled
def marks(text: Bytes) -> tuple[int, int]:
    """Where the first special byte of a word is, and the first that is no digit; 8 for none."""
    eight = word(text, 0)
    odd, other = special(eight), no_digit(eight)
    return place(odd) if odd else 8, place(other) if other else 8


@compiled
def start(text: Bytes, i: int, count: int) -> tuple[int, np.uint64]:
    """A byte, and the first bytes of the word that begins there."""
    return byte(text, i), first(word(text, i), count)


@compiled
def moved(text: Bytes, room: Bytes, begin: int, count: int) -> None:
    """A copy in the middle of the room."""
    copy(text, begin, count, room, 2)


def array(text: bytes) -> Bytes:
    return np.frombuffer(text, dtype=np.uint8)


@given(eights)
def test_the_first_of_a_kind_is_found(eight: bytes) -> None:
    wanted = [found.start() if (found := kind.search(eight)) else 8 for kind in (SPECIAL, NO_DIGIT)]
    assert list(marks(array(eight))) == wanted


@given(st.binary(min_size=8, max_size=30), st.integers(0, 8), st.data())
def test_bytes_are_read_where_they_stand(text: bytes, count: int, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(text) - 8))
    one, some = start(array(text), i, count)
    assert one == text[i]
    assert some == packed(text[i : i + count])[0]


@given(st.binary(max_size=16))
def test_a_name_is_packed_as_its_words(name: bytes) -> None:
    text = array(name + bytes(range(100, 116)))
    low, high = packed(name)
    assert start(text, 0, min(len(name), 8))[1] == low
    assert start(text, 8, max(len(name), 8) - 8)[1] == high


@given(st.binary(min_size=1, max_size=20), st.data())
def test_a_copy_writes_nothing_beside_itself(text: bytes, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(text)))
    count = data.draw(st.integers(0, len(text) - begin))
    room = np.full(count + 4, 7, dtype=np.uint8)
    moved(array(text), room, begin, count)
    assert room.tobytes() == b"\x07\x07" + text[begin : begin + count] + b"\x07\x07"
