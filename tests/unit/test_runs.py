"""Items written many at once are the bytes that each one is by itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from context.items import OPENING, Batch, encode_item
from context.runs import Run, pieces, runs_of

EPOCH, AT = "e1", 1723161256.322
LINES = st.lists(
    st.binary(max_size=300).map(
        lambda some: b'{"type":"p%%d","data":{"x":"%b"}}' % some.hex().encode()
    ),
    min_size=1,
    max_size=20,
)


def batch_of(lines: list[bytes], first: int = 98) -> Batch:
    return Batch(first, len(lines), AT, 3, b"".join(line + b"\n" for line in lines))


@given(LINES, st.sampled_from([98, 995, 999_990, 123_456_789]), st.data())
def test_a_run_is_written_as_its_items_are(
    lines: list[bytes], first: int, data: st.DataObject
) -> None:
    some = st.sets(st.integers(0, len(lines) - 1)).map(sorted)
    chosen = data.draw(st.none() | some)
    places = range(len(lines)) if chosen is None else chosen
    wanted = [(first + i, encode_item(EPOCH, first + i, AT, lines[i])) for i in places]
    run = Run.of(EPOCH, batch_of(lines, first), chosen)
    assert list(run.items()) == wanted
    assert len(run) == len(wanted)
    assert run.written((b"<", b"|"), b">") == b"".join(b"<%d|%b>" % each for each in wanted)
    assert run.written((b"",), b",") == b"".join(item + b"," for _, item in wanted)
    cut = data.draw(st.integers(first - 2, first + 1 + len(lines)))
    assert list(run.after(cut).items()) == [each for each in wanted if each[0] > cut]
    assert list(run.until(cut).items()) == [each for each in wanted if each[0] <= cut]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.5])), max_size=20))
def test_neighbours_of_one_time_share_a_run(steps: list[tuple[int, float]]) -> None:
    found, offset = [], 0
    for step, at in steps:
        offset += 1 + step
        found.append((offset, at, b'n%d"}' % offset))
    runs = runs_of(EPOCH, found)
    assert [item for run in runs for item in run.items()] == [
        (o, encode_item(EPOCH, o, at, OPENING + body)) for o, at, body in found
    ]
    assert all(a.ingested_at != b.ingested_at for a, b in pairwise(runs))


@given(st.lists(LINES, max_size=6), st.integers(1, 3000))
def test_pieces_hold_all_in_order_and_are_small(batches: list[list[bytes]], size: int) -> None:
    runs, first = [], 0
    for lines in batches:
        runs.append(Run.of(EPOCH, batch_of(lines, first)))
        first += len(lines)
    made = list(pieces(runs, size))
    sent = [[item for run in piece for item in run.items()] for piece in made]
    assert [item for items in sent for item in items] == [i for run in runs for i in run.items()]
    for items in sent:
        assert items
        assert len(items) == 1 or sum(len(item) for _, item in items) <= size
    for items, following in pairwise(sent):  # no two could have been one
        assert sum(len(item) + 40 for _, item in [*items, *following]) > size
