"""Bodies become lines exactly as sent, or are refused whole with the place of the fault."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import line_ends
from context.errors import ContextError, InvalidItem, InvalidJson, InvalidRequest
from context.ingest import CHUNK_BYTES, parse_json, parse_ndjson, parse_usual
from context.items import MAX_ITEM_BYTES, Cursor, encode_item
from context.types import Types

NOW = 1790000000.5
FIELDS = ("type", "source", "timestamp", "data", "metadata")
TRADE = {"type": "trading_data", "data": {"symbol": "BTC/USD", "price": 1}}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner)
    ),
    max_leaves=12,
)
objects = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8), values, max_size=5
)
items = st.fixed_dictionaries(
    {"type": st.from_regex(r"x[a-z0-9_]{0,10}", fullmatch=True), "data": objects},
    optional={
        "source": st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        "timestamp": st.floats(-1e11, 1e11) | st.integers(-(10**11), 10**11),
        "metadata": objects,
    },
)


def expected_line(item: dict[str, Any]) -> dict[str, Any]:
    line = {
        "type": item["type"],
        "source": item.get("source", "unknown"),
        "timestamp": item.get("timestamp", NOW),
        "data": item["data"],
    }
    return line | ({"metadata": item["metadata"]} if "metadata" in item else {})


@settings(max_examples=200, deadline=None)
@given(batch=st.lists(items, min_size=1, max_size=5), spaced=st.booleans(), ascii_=st.booleans())
def test_lines_hold_what_was_sent_in_order_and_compact(
    batch: list[dict[str, Any]], spaced: bool, ascii_: bool
) -> None:
    separators = None if spaced else (",", ":")
    texts = [json.dumps(item, separators=separators, ensure_ascii=ascii_) for item in batch]
    types = Types()
    for made in (
        parse_json(f"[{','.join(texts)}]".encode(), types, now=NOW),
        parse_ndjson("\r\n".join(texts).encode(), types, now=NOW),
    ):
        lines = made.text.split(b"\n")
        assert lines.pop() == b"", "every line is ended"
        assert made.count == len(lines) == len(batch)
        for line, item in zip(lines, batch, strict=True):
            found = json.loads(line)
            assert found == expected_line(item)
            assert list(found) == list(expected_line(item))
            assert list(found["data"]) == list(item["data"])
    if len(batch) == 1:
        assert parse_json(texts[0].encode(), types, now=NOW).count == 1


numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,400})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)
pieces = (
    numbers
    | st.text(max_size=6).map(json.dumps)
    | st.sampled_from(["true", "null", "[ ]", '"\\/"'])
)
spaces = st.sampled_from(["", "", " ", "\t", " \r "])


@st.composite
def sent_texts(draw: st.DrawFn) -> str:
    """JSON of an item in any order of fields, with spaces, escapes and numbers of every form."""
    inner = draw(st.lists(pieces, max_size=4))
    data = ",".join(f'"k{i}"{draw(spaces)}:{draw(spaces)}{piece}' for i, piece in enumerate(inner))
    fields = {"type": '"note"', "data": "{" + draw(spaces) + data + draw(spaces) + "}"}
    fields |= {"source": '"a\\u0062"'} if draw(st.booleans()) else {}
    fields |= {"timestamp": "1767225600.000123"} if draw(st.booleans()) else {}
    fields |= {"metadata": '{"n": 1.0}'} if draw(st.booleans()) else {}
    names = draw(st.permutations(sorted(fields)))
    return "{" + ",".join(f'{draw(spaces)}"{name}":{fields[name]}' for name in names) + "}"


class Number(str):
    """The digits of a number."""

    __slots__ = ()


def as_written(text: str | bytes) -> dict[str, Any]:
    """Decoded, but every number as the text that stands there."""
    found: dict[str, Any] = json.loads(text, parse_float=Number, parse_int=Number)
    return found


@settings(max_examples=500, deadline=None)
@given(texts=st.lists(sent_texts(), min_size=1, max_size=4), array=st.booleans())
def test_numbers_stay_as_sent_and_only_finite_ones_are_taken(texts: list[str], array: bool) -> None:
    finite = all(
        abs(float(number)) < float("inf")
        for text in texts
        for number in as_written(text)["data"].values()
        if isinstance(number, Number)
    )
    body = f"[{', '.join(texts)}]" if array else "\n\n".join(texts) + "\n"
    parse = parse_json if array else parse_ndjson
    if array and len(texts) == 1:
        body = f" {texts[0]}\n"  # one item by itself
    if not finite:
        with pytest.raises(InvalidItem):
            parse(body.encode(), Types(), now=NOW)
        return
    lines = parse(body.encode(), Types(), now=NOW).text.splitlines()
    for line, text in zip(lines, texts, strict=True):
        sent = as_written(text)
        filled = {"source": "unknown", "timestamp": str(NOW), **sent}
        assert as_written(line) == filled
        assert [*as_written(line)] == [name for name in FIELDS if name in filled]
        assert msgspec.json.format(line, indent=-1) == line
        assert not re.search(rb"\\(u(?!00[01])|/)", line.replace(b"\\\\", b"")), "needless escapes"


ODD = (b"", b"\n", b'{"type":"x","data":{}}\n\n', b'{"type":"x","data":{"a":"\xc3', b"[1]", b"{}")


@given(
    sent=st.lists(
        st.lists(items, min_size=1, max_size=4).map(
            lambda batch: b"\n".join(msgspec.json.encode(item) for item in batch)
        )
        | st.sampled_from(ODD),
        min_size=1,
        max_size=5,
    ),
    ended=st.booleans(),
)
def test_bodies_read_together_are_what_each_is_by_itself(sent: list[bytes], ended: bool) -> None:
    bodies = [body + b"\n" if ended else body for body in sent]
    together = parse_usual(bodies, Types(), now=NOW)
    if together is None:
        return
    lines, counts = together
    alone = [parse_ndjson(body, Types(), now=NOW) for body in bodies]
    assert lines.text == b"".join(each.text for each in alone)
    assert counts == [each.count for each in alone]
    assert lines.ends is not None
    assert lines.ends.tolist() == line_ends(lines.text).tolist()


def test_usual_bodies_are_read_together_and_with_another_one_not_at_all() -> None:
    usual = [msgspec.json.encode({"type": "x", "data": {"n": n}}) for n in range(3)]
    together = parse_usual(usual, Types(), now=NOW)
    assert together is not None
    assert together[1] == [1, 1, 1]
    assert all(parse_usual([*usual, odd], Types(), now=NOW) is None for odd in ODD)


def test_a_line_is_compact_utf8() -> None:
    body = '{"type": "note", "timestamp": 5, "data": {"b": [1, 2.50], "a": "h\\u00e9\\/"}}'
    line = '{"type":"note","source":"unknown","timestamp":5,"data":{"b":[1,2.50],"a":"hé/"}}\n'
    assert parse_json(body.encode(), Types(), now=NOW).text == line.encode()


def test_item_json_is_spliced_from_the_line() -> None:
    text = parse_json(json.dumps(TRADE).encode(), Types(), now=NOW).text
    item = json.loads(encode_item("e1", 7, 1.25, text[:-1]))
    assert item == {
        "id": "e1:7",
        "offset": 7,
        "ingested_at": 1.25,
        "source": "unknown",
        "timestamp": NOW,
        **TRADE,
    }


def trade(**data: Any) -> dict[str, Any]:
    return {"type": "trading_data", "data": {"symbol": "S", "price": 1} | data}


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"type": "trading_data", "data": {"price": 1}}, "data.symbol"),
        (trade(symbol=""), "data.symbol"),
        (trade(symbol=5), "data.symbol"),
        ({"type": "trading_data", "data": {"symbol": "S"}}, "data.price"),
        (trade(price=-0.5), "data.price"),
        (trade(price="1"), "data.price"),
        (trade(price=True), "data.price"),
        (trade(price=10**400), "data.price"),
        (trade(volume=-1), "data.volume"),
        ({"type": "tensor_math", "data": {"result": 1}}, "data.calculation_id"),
        ({"type": "tensor_math", "data": {"calculation_id": "c"}}, "data.result"),
        (
            {
                "type": "tensor_math",
                "data": {"calculation_id": "c", "result": 1, "confidence": 1.01},
            },
            "data.confidence",
        ),
        (
            {"type": "tensor_math", "data": {"calculation_id": "c", "result": 1, "hash_value": 3}},
            "data.hash_value",
        ),
        ({"type": "ai_decision", "data": {"decision": "buy"}}, "data.model"),
        ({"type": "ai_decision", "data": {"model": "m"}}, "data.decision"),
        (
            {"type": "ai_decision", "data": {"model": "m", "decision": "buy", "impact": "big"}},
            "data.impact",
        ),
        ({"type": "system_health", "data": {}}, "data"),
        ({"type": "Bad", "data": {}}, "type"),
        ({"type": "x" * 65, "data": {}}, "type"),
        ({"type": "note", "data": []}, "data"),
        ({"type": "note"}, "data"),
        ({"data": {}}, "type"),
        ({"type": "note", "data": {}, "id": 1}, "id"),
        ({"type": "note", "data": {}, "timestamp": "now"}, "timestamp"),
        ({"type": "note", "data": {}, "timestamp": 1723161256322}, "timestamp"),
        ({"type": "note", "data": {}, "metadata": 3}, "metadata"),
        ({"type": "note", "data": {"text": "x" * MAX_ITEM_BYTES}}, ""),
        ({"type": "note", "data": {"a": {"b": [1, float("nan")]}}}, "data.a.b.1"),
        ({"type": "note", "data": {"a": float("-inf")}}, "data.a"),
    ],
)
def test_a_refusal_names_the_item_and_the_field(item: dict[str, Any], field: str) -> None:
    batch = [json.dumps(TRADE), json.dumps(TRADE), json.dumps(item), json.dumps(TRADE)]
    for parse, body in ((parse_json, f"[{','.join(batch)}]"), (parse_ndjson, "\n".join(batch))):
        with pytest.raises(InvalidItem) as refused:
            parse(body.encode(), Types(), now=NOW)
        assert [(e["index"], e["field"]) for e in refused.value.errors] == [(2, field)]


def test_items_at_the_edge_of_the_rules_are_taken() -> None:
    batch = [
        trade(price=0, volume=0),
        {"type": "ai_decision", "data": {"decision_id": "d", "decision": {"any": 1}}},
        {"type": "system_health", "data": {"cpu": 3, "state": "fine"}},
        {"type": "tensor_math", "data": {"calculation_id": 1, "result": None, "confidence": 1}},
        {"type": "x" * 64, "data": {}},
    ]
    assert parse_json(json.dumps(batch).encode(), Types(), now=NOW).count == len(batch)


@pytest.mark.parametrize(
    "body", [b"", b"3", b'"x"', b"{", b"[1,", b'{"type":"a","data":{"s":"\xff"}}']
)
def test_what_is_no_json_is_a_bad_body(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_json(body, Types(), now=NOW)


@pytest.mark.parametrize(
    "body", [b"[]", b"[" * 100_000, b'{"type":"a","data":' + b'{"a":' * 50_000]
)
def test_odd_bodies_are_refused_not_crashed_on(body: bytes) -> None:
    for parse in (parse_json, parse_ndjson):
        with pytest.raises(ContextError):
            parse(body, Types(), now=NOW)


def test_the_place_of_a_fault_is_right_beyond_the_first_chunk() -> None:
    count = 3 * CHUNK_BYTES // 60
    lines = [b'{"type":"note","data":{"text":"some words to fill"}}'] * count
    lines[-2] = b'{"type":"note","data":{"text":"x"},"more":1}'
    for parse, body in (
        (parse_ndjson, b"\n".join(lines)),
        (parse_json, b"[" + b",".join(lines) + b"]"),
    ):
        with pytest.raises(InvalidItem) as refused:
            parse(body, Types(), now=NOW)
        assert refused.value.errors[0]["index"] == count - 2
        good = body.replace(b',"more":1', b"")
        assert parse(good, Types(), now=NOW).count == count


def test_a_registered_schema_is_obeyed_and_cannot_reach_out() -> None:
    types = Types()
    types.register(
        "vote", {"type": "object", "required": ["who"], "properties": {"n": {"minimum": 1}}}
    )
    good = b'{"type":"vote","data":{"who":"a","n":1}}'
    assert parse_json(good, types, now=NOW).count == 1
    with pytest.raises(InvalidItem) as refused:
        parse_json(good.replace(b'"n":1', b'"n":0'), types, now=NOW)
    assert refused.value.errors[0]["field"] == "data.n"
    for schema in (
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"type": "nonsense"},
        {"pattern": "(?=x)"},
    ):
        with pytest.raises(InvalidRequest):
            types.register("other", schema)
    for name in ("trading_data", "Bad"):
        with pytest.raises(InvalidRequest):
            types.register(name, {})


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "A:1", "a:-2", "a:01", "a:1 ", "a:1" + "0" * 30]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ContextError, match="cursor"):
        Cursor.parse(text)


@given(epoch=st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True), offset=st.integers(-1, 10**18 - 1))
def test_cursors_read_back(epoch: str, offset: int) -> None:
    assert Cursor.parse(str(Cursor(epoch, offset))) == Cursor(epoch, offset)
