"""A bitmap never lacks a gram of its text, whatever the case, and never one over a newline."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from context.compiled import compiled
from context.ngrams import BITMAP_BYTES, Hasher, positions

HASHER = Hasher()
TEXT = st.text(st.sampled_from("aAbZ09\n é\u212a{\x00\x7f"), max_size=60).map(str.encode)


def bits(text: bytes) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(HASHER.bitmap(text), bitorder="little")).tolist())


def bit(gram: bytes) -> int:
    """The definition in docs/block-format.md, in plain integers."""
    number = int.from_bytes(gram.lower(), "big") << (64 - 8 * len(gram))
    mixed = number * 0x9E3779B97F4A7C15 % 2**64
    return mixed >> 45 if len(gram) == 6 else (1 << 19) + (mixed >> 46)


@given(TEXT)
@settings(deadline=None)
def test_a_bitmap_has_the_grams_of_its_lines_and_nothing_else(text: bytes) -> None:
    assert bits(text) == {
        bit(line[i : i + n])
        for line in text.split(b"\n")
        for n in (3, 6)
        for i in range(len(line) - n + 1)
    }


@given(TEXT, st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_every_piece_of_a_line_is_found_in_any_case(text: bytes, first: int, last: int) -> None:
    piece = text[first:last]
    if b"\n" not in piece:
        assert set(positions(piece)) <= bits(text)
        assert set(positions(piece.swapcase())) <= bits(text)


def test_a_short_literal_has_no_bits_and_a_longer_one_those_of_six_bytes() -> None:
    assert positions(b"ab") == []
    assert positions(b"ab\n") == []
    assert positions(b"abcd") == sorted({bit(b"abc"), bit(b"bcd")})
    assert positions(b"abcde") == sorted({bit(b"abc"), bit(b"bcd"), bit(b"cde")})
    assert positions(b"abcdefg") == sorted({bit(b"abcdef"), bit(b"bcdefg")})


def test_texts_of_any_size_follow_each_other_without_a_trace() -> None:
    large = b"x" * (3 << 20)
    assert bits(large) == {bit(b"xxx"), bit(b"xxxxxx")}
    assert bits(b"") == set()
    assert HASHER.bitmap(b"").shape == (BITMAP_BYTES,)


def test_a_loop_without_a_place_for_its_machine_code_is_compiled_all_the_same() -> None:
    scope: dict[str, Any] = {"np": np}
    exec(compile("def f(a):\n    a[0] = np.uint8(7)", "<nowhere>", "exec"), scope)
    array = np.zeros(1, dtype=np.uint8)
    compiled(scope["f"])(array)
    assert array[0] == 7
