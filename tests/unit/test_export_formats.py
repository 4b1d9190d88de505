"""Formats of an export read back by the programs that people use for them."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.client_values import save
from context.errors import BadPattern, InvalidRequest
from context.export import COLUMNS, FORMATS, format_named
from context.request import parse_export
from server.agent_client import AgentClient, AgentUnavailable
from server.api.export import ExportCut, _body
from server.export_frames import ExportPiece, ExportStart
from server.ipc import Answer

Items = list[tuple[int, float, bytes]]

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(), lambda inner: st.lists(inner, max_size=3)
)
DATA = st.dictionaries(st.sampled_from(["symbol", "price", "a", "=b"]), JSON)
SENT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["trading_data", "note"]),
        "source": st.text(),
        "timestamp": st.integers(-(10**11), 10**11) | st.floats(-1e11, 1e11),
        "data": DATA,
    },
    optional={"metadata": DATA},
)


def lines(sent: list[dict[str, Any]], first: int = 5) -> Items:
    return [(first + i, 1.5e9 + i / 3, msgspec.json.encode(item)) for i, item in enumerate(sent)]


def whole(name: str, *pieces: Items) -> bytes:
    form = format_named(name)
    return form.head() + b"".join(form.rows("ep", piece) for piece in pieces) + form.tail


@given(st.lists(SENT, max_size=5), st.lists(SENT, max_size=5))
def test_ndjson_holds_the_items_of_the_api(one: list[Any], two: list[Any]) -> None:
    sent = one + two
    raw = whole("ndjson", lines(one), lines(two, 5 + len(one)))
    assert raw.count(b"\n") == len(sent)
    for i, (line, item) in enumerate(zip(raw.splitlines(), sent, strict=True)):
        found = json.loads(line)
        assert {name: found[name] for name in item} == item
        assert found["id"] == f"ep:{found['offset']}" == f"ep:{5 + i}"


@given(st.lists(SENT, max_size=5), st.lists(SENT, max_size=5))
def test_csv_loses_nothing(one: list[Any], two: list[Any]) -> None:
    raw = whole("csv", lines(one), lines(two, 5 + len(one)))
    head, *rows = csv.reader(io.StringIO(raw.decode(), newline=""), strict=True)
    assert head == COLUMNS
    for row, item in zip(rows, one + two, strict=True):
        found = dict(zip(head, row, strict=True))
        assert (found["type"], found["source"]) == (item["type"], item["source"])
        assert json.loads(found["timestamp"]) == item["timestamp"]
        assert json.loads(found["data"]) == item["data"]
        assert json.loads(found["metadata"] or "null") == item.get("metadata")
        price, symbol = item["data"].get("price"), item["data"].get("symbol")
        number = isinstance(price, int | float) and not isinstance(price, bool)
        assert found["price"] == (msgspec.json.encode(price).decode() if number else "")
        assert found["symbol"] == (symbol if isinstance(symbol, str) else "")


@given(st.lists(SENT, max_size=5), st.lists(SENT, max_size=5))
def test_arrow_keeps_types_and_nulls(one: list[Any], two: list[Any]) -> None:
    raw = whole("arrow", lines(one), lines(two, 5 + len(one)))
    with pa.ipc.open_stream(raw) as reader:
        table = reader.read_all()
    table.validate(full=True)
    assert table.column_names == COLUMNS
    assert str(table.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert table["offset"].to_pylist() == list(range(5, 5 + len(one + two)))
    micros = table["timestamp"].cast(pa.int64()).to_pylist()
    for i, item in enumerate(one + two):
        row = {name: table[name][i] for name in ("type", "source", "symbol", "price")}
        price, symbol = item["data"].get("price"), item["data"].get("symbol")
        number = isinstance(price, int | float) and not isinstance(price, bool)
        assert row["source"].as_py() == item["source"]
        assert row["price"].as_py() == (float(price) if number else None)
        assert row["symbol"].as_py() == (symbol if isinstance(symbol, str) else None)
        assert micros[i] == pytest.approx(item["timestamp"] * 1e6, abs=0.51)
        assert json.loads(table["data"][i].as_py()) == item["data"]
        assert json.loads(table["metadata"][i].as_py() or "null") == item.get("metadata")


def test_options_are_those_of_a_search() -> None:
    asked = parse_export(
        {"types": "a,b", "type": "c", "since": "1.5", "regex": "true", "query": ""}
    )
    assert asked.selection().filter.types == frozenset("abc")
    assert (asked.format, asked.since, asked.regex) == ("ndjson", 1.5, True)
    for wrong in ({"format": "xml"}, {"limit": "3"}, {"since": "nan"}, {"invert": "maybe"}):
        with pytest.raises(InvalidRequest):
            parse_export(wrong)
    with pytest.raises(BadPattern):
        parse_export({"query": "(", "regex": "true"}).selection()
    assert set(FORMATS) == {"ndjson", "csv", "arrow"}


class Script(AgentClient):
    """An agent whose answers are written down."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers, self.asked = list(answers), list[int]()

    def call(self, method: str, params: Any = None, body: bytes = b"") -> Answer:
        self.asked.append(params["after"])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def piece(reached: int, body: bytes = b"x", epoch: str = "e", oldest: int = 0) -> Answer:
    made = ExportPiece(epoch, oldest, reached, body)
    return Answer(200, {}, msgspec.msgpack.encode(made))


START = ExportStart("e", -1, 9, "", "", b"<", b">", [])


def test_pieces_follow_each_other_also_over_a_restart() -> None:
    busy = Answer(429, {}, b"busy")
    agent = Script(piece(3), busy, AgentUnavailable("restarting"), piece(7, b""), piece(12))
    assert b"".join(_body(agent, {}, START)) == b"<xx>"
    assert agent.asked == [-1, 3, 3, 3, 7]


@pytest.mark.parametrize(
    "answer", [piece(5, epoch="f"), piece(5, oldest=4), Answer(500, {}, b"broken")]
)
def test_what_cannot_be_given_cuts_the_body(answer: Answer) -> None:
    body, got = _body(Script(piece(2), answer), {}, START), list[bytes]()
    with pytest.raises(ExportCut):
        got.extend(body)
    assert got == [b"<", b"x"]


def test_a_file_is_there_only_when_it_is_whole(tmp_path: Any) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def breaking() -> Any:
        yield b"new"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        save(breaking(), path, None)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"old"]
    heard: list[int] = []
    assert save([b"ab", b"c"], str(path), heard.append) == 3
    assert (path.read_bytes(), heard) == (b"abc", [2, 3])
