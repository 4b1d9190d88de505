"""The ring gives every item after a cursor once and in order, or says that it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.hub import FRAMED_BYTES, FRAMED_ENTRIES, Entry, Ring
from context.items import Batch


def batch(first: int, count: int, size: int = 10) -> Batch:
    return Batch(first, count, 0.0, 1, b"x" * size)


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=60),
    start=st.integers(-1, 50),
    room=st.integers(1, 300),
    data=st.data(),
)
def test_from_any_cursor_all_that_follows_or_none(
    counts: list[int], start: int, room: int, data: st.DataObject
) -> None:
    ring = Ring(room, newest=start)
    first = start + 1
    for count in counts:
        ring.add(batch(first, count))
        first += count
    newest = first - 1
    assert ring.newest == newest
    cursor = data.draw(st.integers(start - 3, newest + 3))
    found = ring.after(cursor)
    if cursor >= newest:
        assert found == ()
    elif found is None:
        kept = ring.after(newest - 1)
        assert kept is not None
        assert len(kept) == 1
    else:
        offsets = [
            offset
            for entry in found
            for offset in range(entry.batch.first_offset, entry.batch.last_offset + 1)
            if offset > cursor
        ]
        assert offsets == list(range(cursor + 1, newest + 1))


def test_memory_is_bounded_and_the_newest_batch_stays() -> None:
    ring = Ring(100)
    for i in range(50):
        ring.add(batch(i, 1, size=30))
    assert ring.after(45) is None
    assert [entry.batch.first_offset for entry in ring.after(46) or ()] == [47, 48, 49]
    ring.add(batch(50, 1, size=1000))
    assert ring.after(48) is None
    assert len(ring.after(49) or ()) == 1


def test_a_repeat_is_refused_and_behind_missing_history_the_ring_begins_anew() -> None:
    ring = Ring(100, newest=4)
    ring.add(batch(5, 1))
    with pytest.raises(ValueError, match="batch at 5 does not follow 5"):
        ring.add(batch(5, 1))
    ring.add(batch(8, 1))
    assert ring.after(5) is None, "the log tells of the gap"
    assert [entry.batch.first_offset for entry in ring.after(7) or ()] == [8]


def test_a_frame_is_made_once_for_all_who_wish_the_same() -> None:
    ring, made = Ring(10_000), []

    def make(one: Entry) -> bytes:
        made.append(one.batch.first_offset)
        return b"frame"

    for i in range(FRAMED_ENTRIES + 2):
        ring.add(batch(i, 1))
        (entry,) = ring.after(i - 1) or ()
        assert entry.made("wish", make) is entry.made("wish", make)
    assert made == list(range(FRAMED_ENTRIES + 2))
    oldest = (ring.after(-1) or ())[0]
    oldest.made("wish", make)
    assert made[-1] == 0, "old entries gave their frames up"


def test_large_entries_give_their_frames_up_sooner() -> None:
    ring, made = Ring(100 * FRAMED_BYTES), []

    def make(one: Entry) -> bytes:
        made.append(one.batch.first_offset)
        return b"frame"

    for i in range(3):
        ring.add(batch(i, 1, FRAMED_BYTES))
        (ring.after(i - 1) or ())[0].made("wish", make)
    for entry in ring.after(-1) or ():
        entry.made("wish", make)
    assert made == [0, 1, 2, 0, 1], "the newest keeps its own"
