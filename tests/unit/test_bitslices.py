"""Blocks that hold what a query needs are always kept, and most others are not."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.bitslices import BitSlices, ClosedGroup, OpenGroup, Plan
from context.literals import Formula
from context.ngrams import Hasher
from context.sealed import DamagedBlock, folds

HASHER = Hasher()
WORDS = ["alpha", "beta", "gamma", "BETA", "del", "de", "\u212aelvin", "kelvin", "é", "été 12"]
LITERALS = ["alpha", "beta", "lvin", "del", "de", "gam", "kelvin", "été 12", "nothing", "lph"]
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(lambda w: "\n".join(w) + "\n")


def fill(group: OpenGroup, texts: list[str], first: int = 0) -> None:
    for i, text in enumerate(texts):
        data = text.encode()
        group.add(first + 10 * i, HASHER.bitmap(data), folds=folds(data))


def closed(data: bytes) -> ClosedGroup:
    return ClosedGroup(lambda at, length: data[at : at + length])


def formula(needs: list[list[str]], *, ignore_case: bool) -> Formula:
    """As a query would ask: with ignored case the literals are in ASCII lower case."""
    found = tuple(tuple(literal.encode() for literal in need) for need in needs)
    if ignore_case:
        found = tuple(tuple(literal.lower() for literal in need) for need in found)
    return Formula(found, ignore_case)


@given(
    st.lists(TEXT, min_size=1, max_size=12),
    st.lists(st.lists(st.sampled_from(LITERALS), min_size=1, max_size=3), max_size=3),
    st.booleans(),
    st.integers(0, 12),
)
@settings(max_examples=40, deadline=None)
def test_open_and_closed_groups_keep_what_may_match_and_nothing_more(
    texts: list[str], needs: list[list[str]], ignore_case: bool, in_first: int
) -> None:
    wanted = formula(needs, ignore_case=ignore_case)
    plan, slices = Plan(wanted), BitSlices(size=64)
    if 0 < in_first < len(texts):
        fill(slices.open, texts[:in_first])
        slices.settle(closed(slices.open.close()))
        fill(slices.open, texts[in_first:], first=10 * in_first)
    else:
        fill(slices.open, texts)
    kept = slices.candidates(plan, np.arange(0, 10 * len(texts), 10))
    for text, keep in zip(texts, kept.tolist(), strict=True):
        if wanted.holds(text.encode()):
            assert keep
        # Bitmaps do not mind case and know nothing of literals under 3 bytes. The words are so few
        # that no two of their grams share a bit.
        long = [need for need in wanted.needs if min(map(len, need)) >= 3]
        lower = tuple(tuple(literal.lower() for literal in need) for need in long)
        marked = wanted.folds and folds(text.encode())
        assert keep == (marked or Formula(lower).holds(text.encode().lower()))


def test_blocks_of_no_group_are_kept_and_other_blocks_do_not_matter() -> None:
    slices, plan = BitSlices(), Plan(Formula(((b"absent",),)))
    fill(slices.open, ["one\n", "two\n"], first=100)
    asked = np.array([0, 100, 105, 110, 200])
    assert slices.candidates(plan, asked).tolist() == [True, False, True, False, True]
    assert slices.candidates(plan, asked[:0]).tolist() == []
    assert slices.candidates(Plan(Formula()), asked).all()
    assert slices.candidates(plan, np.array([110])).tolist() == [False]


@pytest.fixture(scope="module")
def stored() -> bytes:
    group = OpenGroup(64)
    fill(group, [f"some words and the number {i:06d}\n" for i in range(64)])
    return group.close()


def test_damage_in_the_rows_keeps_every_block_and_says_so(stored: bytes) -> None:
    plan, firsts = Plan(Formula(((b"number 000017",),))), np.arange(0, 640, 10)
    assert np.flatnonzero(BitSlices([closed(stored)]).candidates(plan, firsts)).tolist() == [17]
    begin = stored.index(bytes.fromhex("28b52ffd"))
    broken = closed(stored[:begin] + bytes(len(stored) - begin))
    slices = BitSlices([broken])
    assert broken.damage is None
    assert slices.candidates(plan, firsts).all()
    assert broken.damage is not None
    slices.forget(broken)
    assert slices.closed == ()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_changed_or_missing_byte_of_the_table_is_noticed(
    stored: bytes, data: st.DataObject
) -> None:
    begin = stored.index(bytes.fromhex("28b52ffd"))
    at, change = data.draw(st.integers(0, begin - 1)), data.draw(st.integers(1, 255))
    damaged = stored[:at] + bytes([stored[at] ^ change]) + stored[at + 1 :]
    for each in (damaged, stored[:at], data.draw(st.binary(max_size=40))):
        with pytest.raises(DamagedBlock):
            closed(each)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_bytes_crash_a_search(stored: bytes, data: st.DataObject) -> None:
    """Damage anywhere, a table with any content and the right checksum, or too few bytes."""
    begin = stored.index(bytes.fromhex("28b52ffd"))
    damaged = bytearray(stored)
    for _ in range(data.draw(st.integers(1, 4))):
        end = begin if data.draw(st.booleans()) else len(stored)
        at, length = data.draw(st.integers(8, end - 1)), data.draw(st.integers(1, 8))
        damaged[at : at + length] = data.draw(st.binary(min_size=length, max_size=length))
    if data.draw(st.booleans()):
        crc = zlib.crc32(damaged[20:begin], zlib.crc32(damaged[:16]))
        damaged[16:20] = struct.pack("<I", crc)
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    asked = list[int]()

    def read(at: int, length: int) -> bytes:
        asked.append(length)
        return bytes(damaged[at : at + length])

    try:
        slices = BitSlices([ClosedGroup(read)])
    except DamagedBlock:
        return
    finally:
        assert max(asked) < 2 << 20, "no damage makes it ask for more than a group may have"
    kept = slices.candidates(Plan(Formula(((b"number 000017",),))), np.arange(0, 640, 10))
    assert kept.shape == (64,)
    assert max(asked) < 2 << 20
