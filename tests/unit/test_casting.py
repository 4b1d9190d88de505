"""Items between the schemas of neighbouring versions, by a fake older schema."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from context.casting import Casting
from context.entries import pack, recast
from context.ports import Draft

VALUES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8)
UNKNOWN = st.dictionaries(st.text(min_size=1, max_size=6).map("x_{}".format), VALUES, max_size=3)


def split_up(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 has `base` and `quote` in place of `symbol`."""
    if "symbol" in data:
        data["base"], _, data["quote"] = data.pop("symbol").partition("/")
    return data


def split_down(data: dict[str, Any]) -> dict[str, Any]:
    if "base" in data:
        data["symbol"] = f"{data.pop('base')}/{data.pop('quote')}"
    return data


def cents_up(data: dict[str, Any]) -> dict[str, Any]:
    """Version 3 counts in cents."""
    data["cents"] = data.pop("price") * 100
    return data


def cents_down(data: dict[str, Any]) -> dict[str, Any]:
    data["price"] = data.pop("cents") // 100
    return data


def casting() -> Casting:
    made = Casting()
    made.register("tick", 1, split_up, split_down)
    made.register("tick", 2, cents_up, cents_down)
    return made


OLD = st.fixed_dictionaries(
    {"symbol": st.from_regex(r"[A-Z]{1,4}/[A-Z]{1,4}", fullmatch=True), "price": st.integers(0, 99)}
)


def lines(*items: dict[str, Any]) -> bytes:
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def item(type_: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": type_, "source": "s", "timestamp": 1.50, "data": data, "metadata": {"a": 1}}


@given(OLD, UNKNOWN, st.integers(1, 3), st.integers(1, 3))
def test_there_and_back_is_the_same(
    old: dict[str, Any], unknown: dict[str, Any], here: int, there: int
) -> None:
    cast = casting()
    mine = cast.data("tick", {**old, **unknown}, 1, here)
    other = cast.data("tick", mine, here, there)
    assert cast.data("tick", other, there, here) == mine
    assert unknown.items() <= other.items(), "what a cast does not know it keeps"


@given(st.lists(st.tuples(st.sampled_from(["tick", "note"]), OLD), min_size=1, max_size=4))
def test_lines_stay_lines_and_others_stay_bytes(found: list[tuple[str, dict[str, Any]]]) -> None:
    cast, text = casting(), lines(*(item(*each) for each in found))
    up = cast.lines(text, 1, 2)
    assert up.count(b"\n") == text.count(b"\n")
    for before, after in zip(text.splitlines(), up.splitlines(), strict=True):
        if before.startswith(b'{"type":"note"'):
            assert after == before
        else:
            assert set(json.loads(after)["data"]) == {"base", "quote", "price"}
            assert b'"metadata":{"a":1}' in after
    assert cast.lines(up, 2, 1) == lines(*(item(*each) for each in found)) or any(
        type_ == "tick" for type_, _ in found
    )
    again = [json.loads(line) for line in cast.lines(up, 2, 1).splitlines()]
    assert again == [json.loads(line) for line in text.splitlines()]


@given(st.lists(OLD, min_size=1, max_size=3), st.booleans())
def test_bodies_are_cast_in_each_form(found: list[dict[str, Any]], ndjson: bool) -> None:
    items = [{"type": "tick", "data": data} for data in found]
    body = lines(*items) if ndjson else json.dumps(items).encode()
    cast = casting().body(body, 1, 2, ndjson=ndjson)
    read = [json.loads(line) for line in cast.splitlines()] if ndjson else json.loads(cast)
    assert [split_down(item["data"]) for item in read] == found
    one = json.loads(casting().body(json.dumps(items[0]).encode(), 1, 2, ndjson=False))
    assert split_down(one["data"]) == found[0]


@given(st.binary(max_size=40), st.booleans())
def test_what_is_no_body_stays(junk: bytes, ndjson: bool) -> None:
    junk += b'"tick"'
    assert casting().body(junk, 1, 2, ndjson=ndjson) == junk or ndjson
    odd = b'[{"type": "tick", "data": 5}, 7, {"type": []}]'
    assert casting().body(odd, 1, 2, ndjson=False) == odd


def test_without_casts_nothing_is_touched() -> None:
    text = lines(item("tick", {"symbol": "A/B"}))
    assert Casting().lines(text, 1, 2) is text
    assert casting().lines(text, 2, 2) is text
    part = pack(Draft(1, text, "key", b"digest"))
    assert recast(part, Casting(), 1, 2) is part


def test_a_cast_that_fails_leaves_the_line() -> None:
    text = lines(item("tick", {"cents": "many"}), item("tick", {"symbol": "A/B", "price": 1}))
    first, second = casting().lines(text, 1, 3).splitlines()
    assert first == text.splitlines()[0]
    assert json.loads(second)["data"] == {"base": "A", "quote": "B", "cents": 100}


def test_a_part_keeps_what_came_with_its_key() -> None:
    text = lines(*[item("tick", {"symbol": "A/B", "price": n}) for n in range(50)])
    part = pack(Draft(50, text, "key", b"digest"))
    cast = recast(part, casting(), 1, 2)
    assert (cast.key, cast.digest, cast.count) == ("key", b"digest", 50)
    assert cast.lines() == casting().lines(text, 1, 2)
