"""Rules keep what they say: compared with counting item by item."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import Bounds
from context.retention import Rule, expired, over_budget, parse_rules, superseded
from context.sealed import Head

NOW = 1000.0
TYPES = ("trade", "health", "note")
blocks = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(TYPES), st.integers(1, 9), min_size=1),
        st.integers(0, 1000),  # newest event time
        st.integers(1, 500),  # bytes on disk
    ),
    max_size=12,
)
bound = st.one_of(st.none(), st.integers(1, 30))
rules = st.dictionaries(
    st.sampled_from([*TYPES, "default"]),
    st.builds(Rule, max_age_s=st.one_of(st.none(), st.integers(1, 900)), max_items=bound),
)


def heads(drawn: list[tuple[dict[str, int], int, int]]) -> list[Head]:
    made, at = [], 0
    for types, newest, length in drawn:
        count = sum(types.values())
        bounds = Bounds(at, at + count - 1, 0.0, float(newest), None, None, None, 100 * count)
        made.append(Head(bounds, length, folds=False, types=types, sources={}))
        at += count
    return made


def kept_items(kept: list[Head], name: str, after: int) -> int:
    return sum(head.types.get(name, 0) for head in kept if head.bounds.first_offset > after)


@settings(max_examples=500)
@given(blocks, rules)
def test_a_block_goes_just_when_every_type_in_it_is_past_its_rule(
    drawn: list[tuple[dict[str, int], int, int]], asked: Mapping[str, Rule]
) -> None:
    known = heads(drawn)
    gone = expired(known, asked, now=NOW)
    kept = [head for head in known if head not in gone]
    for i, head in enumerate(known):
        past = []
        for name in head.types:
            rule = asked.get(name) or asked.get("default") or Rule()
            old = rule.max_age_s is not None and head.bounds.max_time < NOW - rule.max_age_s
            newer = kept_items(kept, name, head.bounds.last_offset)
            past.append(old or (rule.max_items is not None and newer >= rule.max_items))
        assert (head in gone) == (all(past) and i < len(known) - 1)
    assert not expired(kept, asked, now=NOW)  # nothing is left to do


@given(blocks, st.integers(-10, 3000))
def test_the_budget_takes_the_oldest_and_no_more_than_it_needs(
    drawn: list[tuple[dict[str, int], int, int]], excess: int
) -> None:
    known = heads(drawn)
    gone = over_budget(known, excess)
    assert gone == known[: len(gone)]
    assert len(gone) < max(1, len(known))
    freed = [head.length for head in gone]
    assert sum(freed[:-1]) < excess or not gone
    assert sum(freed) >= excess or len(gone) == max(0, len(known) - 1)


def test_by_bytes_the_bound_stays() -> None:
    known = heads([({"trade": 5}, 0, 1)] * 4)  # 500 bytes of lines each
    gone = expired(known, {"trade": Rule(max_bytes=900)}, now=NOW)
    assert gone == [known[1], known[0]]


def test_lost_blocks_are_forgotten_with_everything_around_them() -> None:
    known = heads([({"trade": 5}, 0, 1)] * 3)
    assert superseded([known[1]], known[2:]) == [known[1]]
    assert superseded([known[0], known[2]], known[1:]) == []  # nothing was dropped: it is damage


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"trade": {"max_age": 3}}, "trade.max_age"),
        ({"trade": {"max_items": 0}}, "trade.max_items"),
        ({"default": {"max_bytes": "1 GB"}}, "'1 GB'"),
        ({"default": {"max_age_s": True}}, "True"),
        ({"default": {"max_age_s": float("nan")}}, "nan"),
    ],
)
def test_a_wrong_rule_is_named(tables: dict[str, dict[str, object]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_rules(tables)
