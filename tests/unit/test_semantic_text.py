"""Which sentences of an item are embedded, and how rankings are made of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.errors import InvalidRequest
from context.ranking import fuse, quotas
from context.request import parse_search
from context.semantic_text import MAX_CHARS, passage_of, template_of


def line(type_: str, data: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": type_, "source": "s", "timestamp": 7, "data": data})


@pytest.mark.parametrize(
    ("type_", "data", "template"),
    [
        ("tensor_math", {"context_meaning": "Norm of the residual"}, "norm of the residual"),
        ("ai_decision", {"model": "m", "reasoning": "buy  on\nvolume"}, "buy on volume"),
        ("log_line", {"message": "took 12.5 ms", "level": "info"}, "took 0 ms"),
        ("note", {"title": "Fed", "text": "rates up 25"}, "fed. rates up 0"),
        ("trading_data", {"symbol": "A", "price": 1, "note": "opening auction"}, None),
        ("system_health", {"message": "all is well"}, None),
        ("custom", {"message": {"text": "nested"}, "text": 5}, None),
        ("custom", {"log": "42 / 17"}, None),
        ("custom", {}, None),
    ],
)
def test_sentences_of_an_item(type_: str, data: dict[str, Any], template: str | None) -> None:
    passage = passage_of(3, line(type_, data))
    assert (passage and passage.template) == template
    if passage:
        assert (passage.offset, passage.timestamp, passage.source) == (3, 7.0, "s")


def test_a_passage_tells_the_symbol_only_where_it_is_text() -> None:
    for symbol, told in (("BTC/USD", "BTC/USD"), (5, None), (None, None)):
        found = passage_of(0, line("note", {"text": "some words", "symbol": symbol}))
        assert found is not None
        assert found.symbol == told


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("order 17 filled at 61,800.3", "Order 9 filled  at 2.5", True),
        ("job 9f3c22ab11 done at 10:11:12", "job 00aa11bb-22cc done at 9:00", True),
        ("buy BTC/USD", "buy ETH/USD", False),
        ("a facade is deadbeef", "a decade is deadbeef", False),
    ],
)
def test_a_template_is_blind_to_numbers_and_ids_alone(one: str, other: str, same: bool) -> None:
    assert (template_of(one) == template_of(other)) == same


@given(st.text(max_size=3000))
def test_a_template_is_bounded_and_stable(text: str) -> None:
    template = template_of(text)
    assert len(template) <= MAX_CHARS
    if len(template) < MAX_CHARS:
        assert template_of(template) == template


def test_fusion_puts_first_what_both_rankings_know() -> None:
    both = dict(fuse([[9, 8, 7], [7, 6]]))
    assert list(both) == [7, 9, 8, 6]
    assert both[7] == 1 / 63 + 1 / 61
    assert fuse([[5], [6]]) == [(6, 1 / 61), (5, 1 / 61)]  # equal: newest first


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 60))
def test_a_page_is_full_where_it_can_be_and_no_text_crowds_out_others(
    counts: list[int], limit: int
) -> None:
    given_ = quotas(counts, limit)
    assert sum(given_) == min(limit, sum(counts))
    assert all(0 <= got <= count for got, count in zip(given_, counts, strict=True))
    most = max(1, limit // 5)
    if any(got > most for got in given_):  # then nobody was left with less than a fair share
        shares = [min(count, most) for count in counts]
        assert all(got >= share for got, share in zip(given_, shares, strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [("regex", True), ("invert", True), ("context", 2), ("count_only", True), ("query", " ")],
)
@pytest.mark.parametrize("mode", ["semantic", "hybrid"])
def test_options_of_text_alone_are_refused_by_name(mode: str, field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field} ") as refused:
        parse_search({"query": "x", "mode": mode, field: value})
    assert refused.value.errors[0]["field"] == field


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="mode must be text, semantic or hybrid"):
        parse_search({"query": "x", "mode": "meaning"})
