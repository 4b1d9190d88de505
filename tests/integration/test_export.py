"""Exports of a real node: complete, ended at `as_of`, visibly cut, and flat in memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import requests

from context.client import Client, NodeUnreachable
from tests.node_process import ROOT, Api, NodeProcess, free_port, wait_for

EXPORT = "/api/context/export"
TICKS = ROOT / "../shared/data/normalized/ticks_binancefutures_BTCUSDT_20240808.ndjson.gz"
NDJSON = {"Content-Type": "application/x-ndjson"}


def store(api: Api, lines: list[bytes], size: int = 5000) -> None:
    for start in range(0, len(lines), size):
        body = b"\n".join(lines[start : start + size])
        answer = api.post("/api/context/ingest", data=body, headers=NDJSON)
        assert answer.status_code == 201, answer.text


def offsets(answer: requests.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line)["offset"] for line in answer.content.splitlines()]


@pytest.mark.skipif(not TICKS.exists(), reason="needs ../shared/data")
def test_recorded_ticks_come_back_in_every_format(own_node: NodeProcess, tmp_path: Path) -> None:
    sent = gzip.decompress(TICKS.read_bytes()).splitlines()[:20_000]
    items = [json.loads(line) for line in sent]
    store(own_node.client, sent)
    paths = {name: tmp_path / name for name in ("ndjson", "csv", "arrow")}
    with Client(own_node.url) as client:
        for name, path in paths.items():
            done = client.export(path, name)
            assert done == {
                "format": name,
                "bytes": path.stat().st_size,
                "as_of": own_node.client.newest(),
            }
    lines = [json.loads(line) for line in paths["ndjson"].read_bytes().splitlines()]
    assert [
        {k: item[k] for k in sent_item} for item, sent_item in zip(lines, items, strict=True)
    ] == items
    assert [item["offset"] for item in lines] == list(range(len(items)))
    with paths["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert [json.loads(row["data"]) for row in rows] == [item["data"] for item in items]
    assert [row["id"] for row in rows] == [item["id"] for item in lines]
    with pa.ipc.open_stream(paths["arrow"].read_bytes()) as reader:
        table = reader.read_all()
    assert [json.loads(each) for each in table["data"].to_pylist()] == [i["data"] for i in items]
    assert table["price"].to_pylist() == [item["data"].get("price") for item in items]


FILTERS: list[dict[str, Any]] = [
    {"query": "calc-1"},
    {"query": "CALC-1", "ignore_case": True},
    {"query": 'calc-1"|price":1\\d,', "regex": True},
    {"query": "calc", "invert": True},
    {"type": "tensor_math"},
    {"types": ["note", "tensor_math"]},
    {"symbol": "A/B", "since": 100.5, "until": 149},
]


def test_filters_are_those_of_search(api: Api) -> None:
    source = uuid.uuid4().hex
    items: list[dict[str, Any]] = []
    for n in range(300):
        data: dict[str, Any] = {"symbol": "A/B", "price": n}
        kind = ("trading_data", "tensor_math", "note")[n % 3]
        if kind == "tensor_math":
            data = {"calculation_id": f"calc-{n}", "result": n}
        items.append({"type": kind, "source": source, "timestamp": n, "data": data})
    api.ingest(items)
    for filters in FILTERS:
        found = api.post(
            "/api/context/search", json={"query": "", "source": source, "limit": 10000, **filters}
        ).json()
        texts = {k: json.dumps(v) if isinstance(v, bool) else v for k, v in filters.items()}
        answer = api.get(EXPORT, params={"source": source, **texts})
        assert offsets(answer) == [hit["offset"] for hit in reversed(found["items"])]
        assert answer.headers["Context-As-Of"] == found["as_of"]
    assert offsets(api.get(EXPORT, params={"source": "nobody"})) == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"format": "xml"}, "invalid_request"),
        ({"limit": "5"}, "invalid_request"),
        ({"query": "(", "regex": "true"}, "bad_pattern"),
    ],
)
def test_wrong_options_are_refused_at_once(api: Api, params: dict[str, str], code: str) -> None:
    answer = api.get(EXPORT, params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_ends_at_as_of_while_ingest_goes_on(api: Api) -> None:
    pad = "x" * 2000
    for n in range(20):
        api.ingest([{"type": "bulk", "data": {"n": n, "pad": pad}}] * 500)
    stop = threading.Event()

    def produce() -> None:
        with Api(api.url) as own:
            while not stop.is_set():
                own.ingest([{"type": "bulk", "data": {"pad": pad}}] * 100)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        with api.get(EXPORT, stream=True) as answer:
            as_of = int(answer.headers["Context-As-Of"].partition(":")[2])
            wait_for(lambda: int(api.newest().partition(":")[2]) > as_of, "more items")
            assert offsets(answer) == list(range(as_of + 1))
    finally:
        stop.set()
        producer.join()


@pytest.fixture
def full_node(own_node: NodeProcess) -> NodeProcess:
    """Holds some 60 MB: more than sockets buffer."""
    line = json.dumps({"type": "bulk", "data": {"pad": "x" * 3000}}).encode()
    store(own_node.client, [line] * 20_000, 1000)
    return own_node


def pieces_asked(node: NodeProcess) -> int:
    text = node.client.get("/metrics").text
    found = [line for line in text.splitlines() if '"export_piece"' in line and "_count" in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)


def test_a_stopped_reader_stops_the_work(full_node: NodeProcess) -> None:
    with full_node.client.get(EXPORT, stream=True) as answer:
        next(answer.iter_content(1000))
        time.sleep(0.3)  # nothing can be waited for where nothing happens
        assert pieces_asked(full_node) < 30  # of about 60: what the sockets buffer, and no more
    asked = pieces_asked(full_node)
    assert len(offsets(full_node.client.get(EXPORT))) == 20_000
    assert pieces_asked(full_node) - asked <= 62


def test_an_export_outlives_its_agent_but_not_its_node(
    full_node: NodeProcess, tmp_path: Path
) -> None:
    with full_node.client.get(EXPORT, stream=True) as answer:
        chunks = answer.iter_content(1 << 16)
        begun = next(chunks)
        psutil.Process(full_node.child("server.agent")).kill()
        rest = b"".join(chunks)
    assert [json.loads(line)["offset"] for line in (begun + rest).splitlines()] == list(
        range(20_000)
    )
    path = tmp_path / "cut.ndjson"
    with Client(full_node.url) as client, pytest.raises(NodeUnreachable, match="broke off"):
        client.export(
            path, on_progress=lambda count: full_node.kill9() if full_node.pids() else None
        )
    assert list(tmp_path.glob("cut*")) == []


@pytest.mark.parametrize("mode", ["eventlet", "threading"])
def test_a_body_that_breaks_never_looks_whole(mode: str) -> None:
    """What `ExportCut` relies on: the servers leave out the last chunk."""
    port = free_port()
    program = f"""
        from server import runtime
        runtime.patch({mode!r})
        from flask import Flask, Response
        from server.api.export import ExportCut
        def body():
            yield b"something"
            raise ExportCut("gone")
        app = Flask("x")
        app.add_url_rule("/", view_func=lambda: Response(body()))
        runtime.serve(app, runtime.listen("127.0.0.1", {port}), {mode!r}, busy=lambda: False)
    """
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _listens(port), "the server")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(f"http://127.0.0.1:{port}/", timeout=10)
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_command_line_and_data_frames(own_node: NodeProcess, tmp_path: Path) -> None:
    own_node.client.ingest(
        [{"type": "trading_data", "data": {"symbol": "A/B", "price": n}} for n in range(5)]
        + [{"type": "note", "timestamp": 1.5, "data": {"text": "ü,\n"}, "metadata": {"a": 1}}]
    )

    def run(*args: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "app.py", "--export", *args, "--url", own_node.url],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        return done.stdout

    piped = run("-", "--type", "note", "--format", "csv").decode()
    (row,) = csv.DictReader(io.StringIO(piped, newline=""))
    assert (row["type"], json.loads(row["data"])) == ("note", {"text": "ü,\n"})
    path = tmp_path / "all.arrow"
    told = json.loads(run(str(path), "--json"))
    assert (told["format"], told["bytes"]) == ("arrow", path.stat().st_size)
    with Client(own_node.url) as client:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        one = client.to_pandas(type="trading_data")
        assert isinstance(one, pandas.DataFrame)
        assert one["price"].tolist() == [0, 1, 2, 3, 4]
        two = client.to_polars(types=["note", "trading_data"])
        assert isinstance(two, polars.DataFrame)
        assert two["symbol"].to_list() == [*["A/B"] * 5, None]


@pytest.fixture
def million(tmp_path: Path) -> Iterator[NodeProcess]:
    line = b'{"type":"trading_data","timestamp":%d,"data":{"symbol":"A/B","price":1.5,"pad":"%b"}}'
    small = {"CONTEXT_SEARCH_CACHE_MB": "8"}  # else the cache fills up meanwhile, as it should
    with NodeProcess(tmp_path / "data", env=small) as running:
        for start in range(0, 1_000_000, 10_000):
            store(running.client, [line % (start + n, b"x" * 80) for n in range(10_000)], 10_000)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ndjson", "csv", "arrow"])
def test_memory_stays_flat_over_a_million_items(million: NodeProcess, form: str) -> None:
    processes = [psutil.Process(million.child(each)) for each in ("server.agent", "server.web")]
    held: list[int] = []
    with million.client.get(EXPORT, params={"format": form}, stream=True) as answer:
        size = 0
        for chunk in answer.iter_content(1 << 20):
            size += len(chunk)
            held.append(sum(process.memory_info().rss for process in processes))
    assert size > 150e6
    assert max(held) - held[5] < 48 << 20
