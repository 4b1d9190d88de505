"""Vectors on disk beside a plain list: the same answers, through reopening and every crash."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from context.ranking import quotas
from context.semantic_text import Passage
from server.semantic.store import DIMENSIONS, Vectors, VectorStore
from server.semantic.wish import Wish

TEMPLATES = [f"text {name}" for name in "abcdefghij"]
TYPES, SOURCES, SYMBOLS = ("note", "log"), ("s", "t"), (None, "A", "B")
steps = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(TEMPLATES),
            st.integers(1, 3),  # how far behind the item before it
            st.floats(0, 100),
            st.sampled_from(TYPES),
            st.sampled_from(SOURCES),
            st.sampled_from(SYMBOLS),
        ),
        max_size=12,
    ),
    min_size=1,
    max_size=6,
)
wishes = st.builds(
    Wish,
    limit=st.integers(1, 12),
    oldest=st.integers(0, 30),
    before=st.none() | st.integers(0, 60),
    types=st.none() | st.lists(st.sampled_from((*TYPES, "absent")), min_size=1),
    source=st.none() | st.sampled_from(SOURCES),
    symbol=st.none() | st.sampled_from(("A", "B", "absent")),
    since=st.none() | st.floats(0, 100),
    until=st.none() | st.floats(0, 100),
)


def vector_of(template: str) -> Vectors:
    seed = int.from_bytes(template.encode()[-4:], "little")
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


def append(store: VectorStore, passages: list[Passage], reached: int) -> None:
    new = store.unknown([each.template for each in passages])
    store.append(passages, {each: vector_of(each) for each in new}, reached)


def passes(each: Passage, wish: Wish) -> bool:
    return (
        each.offset >= wish.oldest
        and (wish.before is None or each.offset < wish.before)
        and (wish.types is None or each.type in wish.types)
        and (wish.source is None or each.source == wish.source)
        and (wish.symbol is None or each.symbol == wish.symbol)
        and (wish.since is None or each.timestamp >= wish.since)
        and (wish.until is None or each.timestamp <= wish.until)
    )


def plainly(passages: list[Passage], query: Vectors, wish: Wish) -> list[int]:
    """Offsets by a plain loop."""
    held: dict[str, list[int]] = {}
    for each in reversed(passages):
        if passes(each, wish):
            held.setdefault(each.template, []).append(each.offset)
    best = sorted(held, key=lambda each: -float(vector_of(each) @ query))
    given_ = quotas([len(held[each]) for each in best], wish.limit)
    return [offset for each, n in zip(best, given_, strict=True) for offset in held[each][:n]]


def found(store: VectorStore, query: Vectors, wish: Wish) -> list[int]:
    return [offset for offset, _ in store.search(query, wish)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, wishes, st.integers(0, 40), st.integers(1, 40))
def test_it_answers_as_a_plain_list(
    tmp_path: Path, steps: list[list[tuple]], wish: Wish, oldest: int, stride: int
) -> None:
    shutil.rmtree(tmp_path)
    store, everything, offset = VectorStore(tmp_path, "e", stride=stride), [], count(-1)
    for step in steps:
        passages = []
        for template, gap, *rest in step:
            at = [next(offset) for _ in range(gap)][-1] + 1
            passages.append(Passage(template, at, *rest))
        everything += passages
        append(store, passages, next(offset) + 1)
    query = vector_of("what is asked")
    expected = plainly(everything, query, wish)
    assert found(store, query, wish) == expected
    store.commit()
    again = VectorStore(tmp_path, "e", stride=stride)
    assert (again.applied, again.texts, again.items) == (store.applied, store.texts, store.items)
    assert found(again, query, wish) == expected

    again.forget(oldest)
    kept = [each for each in everything if each.offset >= again_oldest(again, oldest, everything)]
    assert found(again, query, wish) == plainly(kept, query, wish)
    third = VectorStore(tmp_path, "e")
    assert found(third, query, wish) == found(again, query, wish)
    assert third.texts == again.texts
    for each in (store, again, third):
        each.close()


def again_oldest(store: VectorStore, oldest: int, everything: list[Passage]) -> int:
    """Items are let go of once most of them are gone, and with them texts that nobody holds."""
    gone = sum(each.offset < oldest for each in everything)
    if gone <= len(everything) // 2:
        assert store.items == len(everything)
        return 0
    kept = {each.template for each in everything if each.offset >= oldest}
    assert (store.items, store.texts) == (len(everything) - gone, len(kept))
    return oldest


def note(template: str, offset: int) -> Passage:
    return Passage(template, offset, 0.0, "note", "s", None)


def test_what_was_not_committed_is_read_again_and_found_once(tmp_path: Path) -> None:
    store, query = VectorStore(tmp_path, "e"), vector_of("q")
    append(store, [note("text a", 0), note("text b", 1)], 5)
    store.commit()
    append(store, [note("text c", 6), note("text a", 7)], 9)
    assert len(found(store, query, Wish(limit=10))) == 4
    store.close()

    again = VectorStore(tmp_path, "e")
    assert (again.applied, again.texts, again.items) == (5, 2, 2)
    append(again, [note("text c", 6), note("text a", 7)], 9)
    assert sorted(found(again, query, Wish(limit=10))) == [0, 1, 6, 7]
    again.close()


@pytest.mark.parametrize("how", ["another log", "short", "head lost", "head garbage"])
def test_what_cannot_be_used_is_read_anew(tmp_path: Path, how: str) -> None:
    store = VectorStore(tmp_path, "e")
    append(store, [note("text a", 0)], 5)
    store.commit()
    store.close()
    if how == "short":
        (tmp_path / "items.0.symbol").write_bytes(b"1234567")
    elif how == "head lost":
        (tmp_path / "head.json").unlink()
    elif how == "head garbage":
        (tmp_path / "head.json").write_bytes(b'{"epoch":')
    again = VectorStore(tmp_path, "f" if how == "another log" else "e")
    assert (again.applied, again.texts, again.items) == (-1, 0, 0)
    assert found(again, vector_of("q"), Wish(limit=10)) == []
    append(again, [note("text b", 3)], 5)
    assert found(again, vector_of("q"), Wish(limit=10)) == [3]
    again.close()


def test_a_crash_while_letting_go_leaves_the_former_state(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "now", "e")
    append(store, [note(f"text {i}", i) for i in range(9)], 8)
    store.commit()
    former = tmp_path / "former"
    shutil.copytree(tmp_path / "now", former)
    store.forget(7)
    for path in (tmp_path / "now").glob("*.1.*"):  # the new arrays are there, the head is not yet
        shutil.copy(path, former)
    store.close()
    again = VectorStore(former, "e")
    assert sorted(found(again, vector_of("q"), Wish(limit=20))) == list(range(9))
    assert not list(former.glob("*.1.*"))
    again.forget(7)
    assert sorted(found(again, vector_of("q"), Wish(limit=20))) == [7, 8]
    again.close()
