"""The quick check never takes what the rules refuse, and takes what is usual."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from context.quick import known
from context.types import TYPES, Types

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.just(10**400),
    st.floats(-2, 2),
    st.sampled_from(["", "buy"]),
    st.just([1]),
    st.just({}),
)
NUMBERS = ("price", "volume", "confidence", "impact", "cpu")
TEXTS = ("symbol", "calculation_id", "hash_value", "context_meaning", "model", "decision_id")
names = st.sampled_from([*NUMBERS, *TEXTS, "decision", "reasoning", "result"])


@settings(max_examples=1000, deadline=None)
@given(
    name=st.sampled_from([*TYPES, "note"]),
    data=st.dictionaries(names, values, min_size=1, max_size=6),
)
def test_what_the_quick_check_takes_the_rules_take(name: str, data: dict[str, Any]) -> None:
    line = {"type": name, "source": "s", "timestamp": 1.5, "data": data}
    heads = known(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    if heads is not None:
        assert Types().check(name, data) is None
        assert (heads[0].type, heads[0].source, heads[0].timestamp) == (name, "s", 1.5)
        assert heads[0].data.symbol == data.get("symbol")


def test_the_usual_is_taken() -> None:
    usual = [
        ("trading_data", {"symbol": "BTC/USD", "price": 1, "volume": 0.5, "side": "buy"}),
        ("system_health", {"cpu": 1.5}),
        ("tensor_math", {"calculation_id": "c", "result": [1], "confidence": 1, "symbol": "S"}),
        ("ai_decision", {"model": "m", "decision": "buy", "reasoning": "so", "impact": -1}),
    ]
    text = b"".join(
        json.dumps(
            {"type": name, "source": "s", "timestamp": 1, "data": data}, separators=(",", ":")
        ).encode()
        + b"\n"
        for name, data in usual
    )
    heads = known(text)
    assert heads is not None
    assert [head.type for head in heads] == [name for name, _ in usual]


def test_a_timestamp_or_metadata_of_another_kind_is_not_taken() -> None:
    good = b'{"type":"system_health","source":"s","timestamp":1,"data":{"a":1}}\n'
    assert known(good)
    assert known(good.replace(b":1,", b":1e12,")) is None
    assert known(good.replace(b"}}", b'},"metadata":3}')) is None
    assert known(good.replace(b"}}", b'},"metadata":{"a":3}}'))
