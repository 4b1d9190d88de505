"""Messages of the replicated stream: what was written is read, and foreign bytes never crash."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from context.entries import Entry, EntryError, Part, decode_entry, encode_entry, pack
from context.heads import Heads
from context.ports import Draft
from shared_storage.changes import Change, Delete, Prune, Put, decode_change, encode_change
from shared_storage.envelope import Envelope, Kind, decode, encode
from shared_storage.errors import BadMessage, NewerMessage

U64 = st.integers(0, 2**64 - 1)
EPOCHS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=32)
ENVELOPES = st.builds(Envelope, st.sampled_from(Kind), U64, U64, EPOCHS, st.binary(max_size=99))
LINES = st.lists(st.binary(max_size=80).map(lambda b: b.replace(b"\n", b"")), min_size=1)
DRAFTS = st.builds(
    lambda lines, key, digest: Draft(len(lines), b"\n".join([*lines, b""]), key, digest),
    LINES,
    st.none() | st.text(max_size=128),
    st.binary(max_size=32),
)


@given(ENVELOPES)
def test_an_envelope_comes_back_and_no_shorter_one_passes(message: Envelope) -> None:
    data = encode(message)
    assert decode(data) == message
    for end in range(len(data) - len(message.payload)):
        with pytest.raises(BadMessage):
            decode(data[:end])


@given(st.binary(max_size=64) | st.binary(max_size=64).map(b"CXR\x01".__add__))
def test_foreign_bytes_are_refused_or_an_envelope(data: bytes) -> None:
    try:
        assert encode(decode(data)) == data
    except BadMessage:
        pass
    except NewerMessage:
        assert data[3] > 1


def test_the_layout_is_what_the_docs_say() -> None:
    message = encode(Envelope(Kind.FENCE, 7, 258, "k3v9x", b"p"))
    assert message == (b"CXR\x01\x03" + b"\x07" + bytes(7) + b"\x02\x01" + bytes(6) + b"\x05k3v9xp")


def test_a_later_version_is_told_from_damage() -> None:
    data = bytearray(encode(Envelope(Kind.ITEMS, 1, 0, "e", b"")))
    data[3] = 2
    with pytest.raises(NewerMessage, match="version 2; this program knows 1"):
        decode(bytes(data))


@given(st.lists(DRAFTS, min_size=1, max_size=5), st.integers(0, 2**40), st.floats(0, 2e9))
def test_items_come_back_as_they_were(drafts: list[Draft], first: int, now: float) -> None:
    entry = decode_entry(encode_entry(first, now, [pack(draft) for draft in drafts]))
    assert (entry.first_offset, entry.ingested_at) == (first, now)
    assert entry.count == sum(draft.count for draft in drafts)
    for draft, (offset, part) in zip(drafts, entry.placed(), strict=True):
        assert offset == first
        assert (part.count, part.lines()) == (draft.count, draft.text)
        assert (part.key, part.digest) == (draft.key, draft.digest)
        first += draft.count


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["x", "ü"]),
            st.floats(-1e9, 4e9),
            st.none() | st.just(7) | st.text(max_size=3),
        ),
        min_size=1,
    )
)
def test_columns_come_along(items: list[tuple[str, str, float, str | int | None]]) -> None:
    lines = [
        {"type": kind, "source": source, "timestamp": at, "data": {"symbol": symbol}}
        for kind, source, at, symbol in items
    ]
    text = msgspec.json.Encoder().encode_lines(lines)
    heads = Heads.read(text)
    (part,) = decode_entry(encode_entry(0, 1.0, [pack(Draft(len(lines), text, heads=heads))])).parts
    come = part.heads()
    assert come is not None
    assert come.timestamps.tobytes() == heads.timestamps.tobytes()
    for column in ("types", "sources", "symbols"):
        assert getattr(come, column).values == getattr(heads, column).values
        assert getattr(come, column).codes.tolist() == getattr(heads, column).codes.tolist()


@pytest.mark.parametrize(
    "columns",
    [
        b"not zstd",
        zstandard.compress(b""),
        zstandard.compress(msgspec.msgpack.encode([["a"], ["b"], [], bytes(8 + 2)])),
        zstandard.compress(msgspec.msgpack.encode([["a"], ["b"], [], bytes(8) + b"\x01\x02\x00"])),
        zstandard.compress(msgspec.msgpack.encode([["a"], ["b"], [], bytes(8 + 4)])),
    ],
)
def test_columns_that_lie_are_refused(columns: bytes) -> None:
    payload = msgspec.msgpack.encode(Entry(0, 0.0, [Part(1, 0, b"x\n", columns=columns)]))
    with pytest.raises(EntryError):
        decode_entry(payload).parts[0].heads()


@given(st.binary(max_size=200))
def test_foreign_payloads_of_items_are_refused(data: bytes) -> None:
    with contextlib.suppress(EntryError):
        assert all(part.lines().endswith(b"\n") for part in decode_entry(data).parts)


@pytest.mark.parametrize(
    "part",
    [
        Part(1, 0, b"no end"),
        Part(2, 0, b"one\n"),
        Part(0, 0, b""),
        Part(1, 2, b"x\n"),
        Part(1, 1, b"not zstd"),
        Part(1, 1, zstandard.compress(b"a\n")[:-2]),
        Part(2, 1, zstandard.compress(b"a\n")),
        Part(1, 1, b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x00"),  # says 2^64 bytes
    ],
)
def test_parts_that_lie_are_refused(part: Part) -> None:
    payload = msgspec.msgpack.encode(Entry(0, 0.0, [part]))
    with pytest.raises(EntryError):
        decode_entry(payload).parts[0].lines()


@pytest.mark.parametrize(
    "change",
    [Put("types", "ä", 3, b"\x00", 1.5), Delete("types", ""), Prune("packs", 7)],
)
def test_changes_of_state_come_back(change: Change) -> None:
    assert decode_change(encode_change(change)) == change


@given(st.binary(max_size=100))
def test_foreign_changes_are_refused(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        assert isinstance(decode_change(data), Put | Delete | Prune)
