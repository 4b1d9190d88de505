"""A sealed block is the block again, or it is damaged: there is no third."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import Block
from context.column import MAX_NAMES
from context.items import Batch
from context.sealed import (
    HEADER,
    DamagedBlock,
    Sealed,
    decode,
    encode,
    folds,
    head_length,
    read_head,
    verify,
)

NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ITEM = st.fixed_dictionaries(
    {
        "type": NAME,
        "source": NAME,
        "timestamp": st.one_of(st.integers(-(10**9), 10**11), st.floats(-1e9, 1e11)),
        "data": st.one_of(st.fixed_dictionaries({"symbol": NAME | st.none()}), st.just({})),
    }
)
BATCH = st.tuples(st.lists(ITEM, min_size=1, max_size=5), st.floats(0, 1e10), st.integers(0, 3))


def lines(items: list[dict[str, Any]]) -> bytes:
    return b"".join(
        json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for item in items
    )


def sealed_of(drawn: list[tuple[list[dict[str, Any]], float, int]], first: int = 0) -> Sealed:
    batches, terms, term, offset = [], [(0, drawn[0][2])], drawn[0][2], first
    for items, at, more in drawn:
        if batches and more:
            term += more
            terms.append((offset - first, term))
        batches.append(Batch(offset, len(items), at, term, lines(items)))
        offset += len(items)
    return Sealed(Block.of(batches), tuple(terms))


def item(i: int, **data: Any) -> dict[str, Any]:
    return {"type": f"t{i % 3}", "source": f"s{i}", "timestamp": i * 0.25, "data": data}


SAMPLE = sealed_of([([item(i, symbol=f"{i}") for i in range(300)], 7.5, 2)], first=1000)
BYTES = encode(SAMPLE)


def assert_same(one: Sealed, other: Sealed) -> None:
    a, b = one.block, other.block
    assert (a.bounds, a.text, one.terms) == (b.bounds, b.text, other.terms)
    assert a.columns.runs == b.columns.runs
    assert np.array_equal(a.ends, b.ends)
    x, y = a.columns.heads, b.columns.heads
    for left, right in ((x.types, y.types), (x.sources, y.sources), (x.symbols, y.symbols)):
        assert list(left.values.items()) == list(right.values.items())
        assert left.codes.dtype == right.codes.dtype
        assert np.array_equal(left.codes, right.codes)
    assert np.array_equal(x.timestamps.view(np.int64), y.timestamps.view(np.int64))


@given(st.lists(BATCH, min_size=1, max_size=6), st.integers(0, 2**62))
@settings(deadline=None)
def test_decoding_gives_what_was_encoded(drawn: list[Any], first: int) -> None:
    sealed = sealed_of(drawn, first)
    data = encode(sealed)
    verify(data)
    assert_same(decode(data), sealed)
    head = read_head(data[: head_length(data)])
    assert (head.bounds, head.length) == (sealed.block.bounds, len(data))
    assert sum(head.types.values()) == sum(head.sources.values()) == sealed.block.count
    assert head.folds == folds(sealed.block.text)


@given(st.lists(BATCH, min_size=1, max_size=6))
@settings(deadline=None)
def test_its_batches_hold_the_same_items_with_their_times_and_terms(drawn: list[Any]) -> None:
    sealed = sealed_of(drawn, 5)
    batches = sealed.batches()
    assert b"".join(batch.text for batch in batches) == sealed.block.text
    again = Block.of(batches)
    assert (again.bounds, again.columns.runs) == (sealed.block.bounds, sealed.block.columns.runs)
    assert all(len(batch.text.splitlines()) == batch.count for batch in batches if batch.count)
    starts = {batch.first_offset - 5: batch.term for batch in batches}
    assert all(starts[i] == term for i, term in sealed.terms)


@given(st.lists(BATCH, min_size=1, max_size=6), st.integers(1, 6))
@settings(deadline=None)
def test_frames_that_are_at_hand_are_not_made_again(drawn: list[Any], cut: int) -> None:
    whole = sealed_of(drawn)
    text, size = whole.block.text, -(-len(whole.block.text) // cut)
    frames = [zstandard.compress(text[at : at + size]) for at in range(0, len(text), size)]
    data = encode(Sealed(whole.block, whole.terms, frames))
    verify(data)
    assert_same(decode(data), whole)
    assert data[8] == (2 if len(frames) > 1 else 1)
    assert data.endswith(b"".join(frames))


def test_frames_that_unpack_to_more_or_less_are_damage() -> None:
    text, half = SAMPLE.block.text, len(SAMPLE.block.text) // 2
    one, other = zstandard.compress(text[:half]), zstandard.compress(text[half:])
    for frames in ([one, other, one], [one, zstandard.compress(b"x")], [one, b"junk"]):
        with pytest.raises(DamagedBlock):
            decode(encode(Sealed(SAMPLE.block, SAMPLE.terms, frames)))


@pytest.mark.parametrize("names", [255, 256, 257, MAX_NAMES + 1, 65_536])
def test_any_number_of_names_fits(names: int) -> None:
    sealed = sealed_of([([item(i, symbol=f"{i}") for i in range(names)], 1.0, 0)])
    again = decode(encode(sealed))
    assert_same(again, sealed)
    assert (again.block.bounds.symbols is None) == (names > MAX_NAMES)


def test_letters_that_fold_into_ascii_are_noticed() -> None:
    texts = {"k": False, "\u212a": True, "\u017f": True, "é": False, "": False}
    assert {text: folds(text.encode()) for text in texts} == texts


@given(st.integers(0, len(BYTES) - 1), st.integers(1, 255))
@settings(max_examples=500, deadline=None)
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    damaged = bytearray(BYTES)
    damaged[at] ^= change
    for read in (verify, decode):
        with pytest.raises(DamagedBlock):
            read(bytes(damaged))


@given(st.integers(0, len(BYTES) - 1), st.binary(max_size=3))
@settings(deadline=None)
def test_missing_and_additional_bytes_are_noticed(length: int, tail: bytes) -> None:
    for damaged in (BYTES[:length] + tail, BYTES + tail + b"\0"):
        if damaged != BYTES:
            with pytest.raises(DamagedBlock):
                decode(damaged)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_refused(data: bytes) -> None:
    for read in (verify, decode, read_head, head_length):
        with pytest.raises(DamagedBlock):
            read(data)


def forge(sections: list[bytes], plain: list[int], first: int, last: int) -> bytes:
    """A block with right checksums around arbitrary sections."""
    table = [
        number
        for section, size in zip(sections, plain, strict=True)
        for number in (len(section), size, zlib.crc32(section))
    ]
    length = HEADER.size + sum(map(len, sections))
    head = HEADER.pack(b"CTXBLK\r\n", 1, 0, length, first, last, 0.0, 1.0, *table, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head)) + b"".join(sections)


def sections() -> tuple[list[bytes], list[int]]:
    table = HEADER.unpack_from(BYTES)[8:17]
    found, at = [], HEADER.size
    for stored in table[0::3]:
        found.append(BYTES[at : at + stored])
        at += stored
    return found, list(table[1::3])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_wrong_content_with_right_checksums_never_crashes(data: st.DataObject) -> None:
    stored, plain = sections()
    i = data.draw(st.integers(0, 2))
    body = bytearray(stored[i])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    stored[i] = bytes(body)
    try:
        decode(forge(stored, plain, 1000, 1299))
    except DamagedBlock:
        return


@pytest.mark.parametrize(
    "frame",
    [
        bytes.fromhex("28b52ffde0ffffffffffffff7f010000"),  # says that it unpacks to 2^63 - 1 bytes
        bytes.fromhex("28b52ffd00580100004142"),  # says nothing of its size
    ],
)
def test_a_frame_that_lies_about_its_size_is_refused_before_it_is_unpacked(frame: bytes) -> None:
    stored, plain = sections()
    stored[2] = frame
    with pytest.raises(DamagedBlock, match="the text"):
        decode(forge(stored, plain, 1000, 1299))
    for size in (64 << 20) + 1, 2**32 - 1:
        with pytest.raises(DamagedBlock, match="the text"):
            decode(forge(stored, [*plain[:2], size], 1000, 1299))


@given(st.integers(0, 2), st.integers((64 << 20) + 1, 2**32 - 1), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_header_that_claims_more_than_any_block_has_is_refused(
    section: int, claimed: int, both: bool
) -> None:
    fields = list(HEADER.unpack_from(BYTES)[:-1])
    more = claimed - fields[8 + 3 * section]
    fields[8 + 3 * section] = claimed
    if both:
        fields[3] = (fields[3] + more) & 0xFFFFFFFF
    head = HEADER.pack(*fields, 0)[:-4]
    data = head + struct.pack("<I", zlib.crc32(head)) + BYTES[HEADER.size :]
    for read in (head_length, read_head, verify, decode):  # before anything of that size is read
        with pytest.raises(DamagedBlock, match="larger than any block"):
            read(data)
