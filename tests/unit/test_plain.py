"""What the compiled pass takes it takes as the careful way does, and the usual it does take."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from context import ingest, plain
from context.block import line_ends
from context.ingest import Lines, parse_ndjson
from context.plain import _Room, read
from context.types import TYPES, Types

NOW = 1723161256.322
RULED = Types()
RULED.register("strict", {"required": ["a"]})

NUMBERS = ("price", "volume", "confidence", "impact", "cpu")
TEXTS = ("symbol", "calculation_id", "hash_value", "context_meaning", "model", "decision_id")
RULED_KEYS = [*NUMBERS, *TEXTS, "decision", "reasoning", "result"]
KEYS = ["a", "symbol", "price", "chain"]  # oftener
VALUES = (
    *("null", "true", "nul", "0", "1", "1.0", "1.5", "0.25", "-0", "-1", "01", "10", "2"),
    *("1e2", "1e400", "1e-3", "0.1e1", "1.", ".5", "-", "+1", "9" * 30, "9" * 400),
    *("0." + "3" * 40, "-" + "1" * 199, "1e+99", "1E5", "1e", "1.e5", "1e5.5", "--1", "0x1"),
    *('""', '"buy"', '"\\u00e9"', '"\\n"', '"\\/"', '"\x01"', '"é"', '"\\"', '"', '"\x7f"'),
    *("[]", "{}", "[1]", "[,]", '{"a":[{}]}', '{"a":1,}', "[1}", '{"price":[]}', "{1:2}", "[[]"),
    *('{"chain":1}', '[{"a":{"b":1,"chain":{}}}]', '{"chains":{"chai":"chain"}}'),
    *(" 1", "[1, 2]", '{"a" :1}', "{a:1}", '{"a"}', '{"\\n":1}', '{"\\u00e9":1}', "[nan]", "NaN"),
)
raw_values = st.one_of(
    st.sampled_from(VALUES),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.integers().map(str),
    st.text(max_size=3).map(json.dumps),
    st.text(max_size=3).map(lambda text: json.dumps(text, ensure_ascii=False)),
)
odd_pairs = st.lists(st.tuples(st.sampled_from([*KEYS, *RULED_KEYS]), raw_values), max_size=2)
GOOD = {
    "trading_data": [("symbol", '"A/B"'), ("price", "1.5")],
    "tensor_math": [("calculation_id", '"c"'), ("result", "[1,[]]"), ("symbol", '"S"')],
    "ai_decision": [("model", '"m"'), ("decision", '"buy"')],
    "system_health": [("cpu", "1.5")],
}


def spelled(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


stamps = st.one_of(
    st.sampled_from(
        ["1", "-0", "1723161256.322", "1725099264.0878966", "-1", "1e9", "1e12", '"1"']
    ),
    st.floats(-1e11, 1e11).map(json.dumps),
)


@st.composite
def raw_items(draw: st.DrawFn) -> str:
    """An item as text, mostly usual, often with one thing out of the ordinary."""
    kind = draw(st.sampled_from([*TYPES, *TYPES, "note", "strict", "Bad"]))
    parts = [f'"type":"{kind}"']
    if draw(st.booleans()):
        parts.append('"source":' + draw(st.sampled_from([*['"s"'] * 5, '"ü"', '"\\n"', "3"])))
    if draw(st.booleans()):
        parts.append('"timestamp":' + draw(stamps))
    pairs = [*GOOD.get(kind, []), *draw(odd_pairs)]
    if draw(st.integers(0, 9)) == 0:
        pairs = pairs[1:]
    parts.append('"data":' + spelled(pairs))
    if draw(st.integers(0, 3)) == 0:
        parts.append('"metadata":' + draw(st.one_of(odd_pairs.map(spelled), raw_values)))
    if draw(st.integers(0, 9)) == 0:
        parts = draw(st.permutations(parts))
    return "{" + ",".join(parts) + "}" + draw(st.sampled_from([*[""] * 9, " ", "\r", "x"]))


def outcome(body: bytes) -> Lines | list[Any]:
    """The lines, or what is said of the items that are refused."""
    try:
        return parse_ndjson(body, RULED, now=NOW)
    except ingest.InvalidItem as exc:
        return list(exc.errors)


def carefully(body: bytes) -> Lines | list[Any]:
    """The same without the compiled pass."""
    with mock.patch.object(ingest, "read", return_value=None):
        return outcome(body)


def assert_same(body: bytes) -> None:
    fast, slow = outcome(body), carefully(body)
    if isinstance(fast, list) or isinstance(slow, list):
        assert fast == slow
        return
    assert (fast.count, fast.text) == (slow.count, slow.text)
    assert fast.may_chain or b'"chain":' not in fast.text
    if fast.ends is not None:  # one chunk, and all of it usual
        np.testing.assert_array_equal(fast.ends, line_ends(fast.text))
    assert fast.heads is not None
    assert slow.heads is not None
    np.testing.assert_array_equal(fast.heads.timestamps, slow.heads.timestamps)
    for name in ("types", "sources", "symbols"):
        one, other = getattr(fast.heads, name), getattr(slow.heads, name)
        assert one.values == other.values
        np.testing.assert_array_equal(one.codes, other.codes)


@settings(max_examples=1500, deadline=None)
@given(st.lists(raw_items(), min_size=1, max_size=2))
def test_the_compiled_pass_takes_nothing_that_is_judged_otherwise(items: list[str]) -> None:
    assert_same("\n".join(items).encode())


TRADE = {"symbol": "A/B", "price": 1, "volume": 0.5, "m": [1, {"é": None}]}
TENSOR = {"calculation_id": "c", "result": [1, []], "confidence": 1.0, "symbol": "S"}
DECISION = {"model": "m", "decision": "buy", "reasoning": 'so\n"said"', "impact": -1}
HEALTH = {"cpu": 1.5, "up": True}


def test_every_odd_value_in_every_place_is_judged_as_the_careful_way_does() -> None:
    for value in VALUES:
        for kind, pairs in GOOD.items():
            for key in [*RULED_KEYS, "a"]:
                one_less = [pair for pair in pairs if pair[0] != key]
                for data in ([*pairs, (key, value)], [*one_less, (key, value)]):
                    assert_same(f'{{"type":"{kind}","data":{spelled(data)}}}'.encode())
        for place in ("source", "timestamp"):
            assert_same(f'{{"type":"note","{place}":{value},"data":{{}}}}'.encode())
        assert_same(f'{{"type":"note","data":{value}}}'.encode())
        assert_same(f'{{"type":"note","data":{{}},"metadata":{value}}}'.encode())


def test_a_search_for_a_chain_is_worth_it_only_where_a_key_says_so() -> None:
    for data, expected in ((TRADE, False), (TRADE | {"x": "chain"}, False), ({"chain": 1}, True)):
        item = {"type": "note", "data": data}
        body = json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()
        found = read(body, RULED, now=NOW)
        assert found is not None
        assert found.chains is expected


USUAL: list[dict[str, Any]] = [
    {"type": "trading_data", "source": "x", "timestamp": 1723161256.322, "data": TRADE},
    {"type": "system_health", "timestamp": 1725099264.0878966, "data": HEALTH},
    {"type": "tensor_math", "data": TENSOR},
    {"type": "ai_decision", "source": "é", "data": DECISION | {"confidence": 0.3}},
    {"type": "note", "source": "x", "timestamp": 7, "data": {}, "metadata": {"k": [{"a": {}}]}},
]
BODY = b"".join(
    json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for item in USUAL
)


def test_the_usual_is_taken_and_completed() -> None:
    found = read(BODY, Types(), now=NOW)
    assert found is not None
    lines = found[0].splitlines()
    assert [json.loads(line) for line in lines] == [
        {"source": "unknown", "timestamp": NOW} | item for item in USUAL
    ]
    assert list(json.loads(lines[1]))[:3] == ["type", "source", "timestamp"]
    assert found[2].tolist() == line_ends(found[0]).tolist()
    assert_same(BODY)


@settings(max_examples=1500, deadline=None)
@given(
    at=st.integers(0, len(BODY) - 1),
    cut=st.integers(0, 3),
    put=st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b"{", b"}", b"\\", b",", b"\n"])),
)
def test_a_changed_byte_is_judged_as_the_careful_way_does(at: int, cut: int, put: bytes) -> None:
    assert_same(BODY[:at] + put + BODY[at + cut :])


@pytest.mark.parametrize("depth", [3, 59, 60, 61, 500])
def test_depth_costs_no_stack(depth: int) -> None:
    assert_same(b'{"type":"note","data":{"a":' + b"[" * depth + b"]" * depth + b"}}")


def test_more_names_than_there_is_room_for_are_read_carefully() -> None:
    assert_same(b"".join(b'{"type":"note","source":"%d","data":{}}\n' % i for i in range(2050)))


SHORTEST = b'{"type":"","data":{}}'
GUARD = 64  # bytes around each array
lines_of_any_kind = st.one_of(
    raw_items().map(str.encode), st.sampled_from([SHORTEST, b'{"type":"n","data":{}}'])
)


@settings(max_examples=500, deadline=None)
@given(st.lists(lines_of_any_kind, min_size=1, max_size=30), st.integers(0, 40))
def test_the_walk_writes_nothing_outside_of_its_room(items: list[bytes], cut: int) -> None:
    body = b"\n".join(items)
    body = body[: max(len(body) - cut, 1)]  # the last line is only begun
    room, guards = _Room(len(body) + 1), list[NDArray[np.uint8]]()
    for name in ("lines", "times", "stamps", "ends", "codes", "kinds"):
        array = getattr(room, name)
        around = np.full(array.nbytes + 2 * GUARD, 0xAB, dtype=np.uint8)
        inside = around[GUARD : GUARD + array.nbytes]
        setattr(room, name, inside.view(array.dtype).reshape(array.shape))
        guards += around[:GUARD], around[GUARD + array.nbytes :]
    with contextlib.suppress(UnicodeDecodeError):
        plain._read(body, RULED, NOW, room)
    assert all((guard == 0xAB).all() for guard in guards)
