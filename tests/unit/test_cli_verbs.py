"""The verbs against a real HTTP server: output, exit status, retries."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from stub_node import StubNode

from context.client import Client
from server.cli import asking as cli
from server.cli.commands import COMMANDS
from server.cli.completion import Known, Words
from server.cli.interactive import history_path
from server.cli.parser import build_parser

RECORDED = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/normalized/trades_binance_BTCUSDT_20240808.ndjson.gz"
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def node() -> Iterator[StubNode]:
    with StubNode() as stub:
        yield stub


@pytest.fixture
def run(node: StubNode, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: str, url: str | None = None) -> tuple[int, str, str]:
        args = build_parser().parse_args([*argv, "--url", url or node.url])
        status = cli.run(args)
        out, err = capsys.readouterr()
        return status, out, err

    return call


def trades(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "trading_data",
            "source": "x",
            "timestamp": 1000.0 + n / 100,
            "data": {"symbol": "A/B", "price": float(n)},
            **more,
        }
        for n in range(count)
    ]


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "argv",
    [
        ["--status"],
        ["--search", "x"],
        ["--tail"],
        ["--tail", "--after", "e1:0"],
        ["--ai-decision", "A/B"],
        ["--replay", "nowhere.ndjson"],
        ["--start-trading", "balanced"],
        ["--stop-trading"],
        ["--emergency-stop"],
        ["--interactive"],
    ],
)
def test_without_a_node_every_verb_says_what_to_do(run: Run, argv: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    status, out, err = run(*argv, url=url)
    assert (status, out) == (3, "")
    assert f"no node reachable at {url}; start one with script/node" in err
    assert err.count("\n") == 1


def test_wrong_arguments(run: Run, tmp_path: Path) -> None:
    assert run("--status", url="nonsense")[0] == 2
    assert run("--status", "--count")[0] == 2
    status, _, err = run("--replay", str(tmp_path / "absent"))
    assert status == 2
    assert "absent: No such file" in err
    assert run("--replay", str(tmp_path))[0] == 2


def test_status(node: StubNode, run: Run) -> None:
    status, out, _ = run("--status")
    assert status == 0
    assert "leader n1, term 1" in out
    document = json.loads(run("--status", "--json")[1])
    assert document["ready"] is True
    assert document["nodes"]["nodes"][0]["id"] == "n1"
    node.ready = False
    status, out, _ = run("--status")
    assert status == 1
    assert "log is opening" in out


def test_search(node: StubNode, run: Run) -> None:
    node.store(trades(12))
    status, out, _ = run("--search", '"price":1')
    assert status == 0
    assert [line.split()[4].partition(":")[0] for line in out.splitlines()] == ["11", "10", "1"]
    assert '1970-01-01 00:16:40.010Z trading_data x 1:{"symbol":"A/B","price":1.0}' in out
    page = json.loads(run("--search", "price", "--limit", "5", "--json")[1])
    assert len(page["items"]) == 5
    assert page["next"] == "e1:7"
    status, out, _ = run("--search", "price", "--before", "e1:7", "--count")
    assert (status, out) == (0, "7\n")
    status, out, err = run("--search", "(", "--regex")
    assert (status, out) == (1, "")
    assert err == "error: the node refused: missing ) (bad_pattern)\n"


def test_search_sends_what_the_api_knows(node: StubNode, run: Run) -> None:
    run("--search", "x", "--regex", "--ignore-case", "--type", "a", "--type", "b", "--since", "5")
    options = {"query": "x", "regex": True, "ignore_case": True, "types": ["a", "b"], "since": 5.0}
    assert node.seen[-1][2] == options
    run("--search", "x", "--type", "a", "--context", "0", "--invert", "--deadline-ms", "9")
    options = {"query": "x", "type": "a", "context": 0, "invert": True, "deadline_ms": 9}
    assert node.seen[-1][2] == options
    run("--search", "x", "--mode", "hybrid")
    assert node.seen[-1][2] == {"query": "x", "mode": "hybrid"}


def test_tail(node: StubNode, run: Run) -> None:
    node.store(trades(5))
    node.hang_up_after_events = [2]
    status, out, err = run("--tail", "--after", "e1:-1", "--limit", "5", "--json")
    assert status == 0
    assert [json.loads(line)["offset"] for line in out.splitlines()] == [0, 1, 2, 3, 4]
    assert err.count("trying again") == 1
    node.gap = {"missed_from": "e1:0", "missed_to": "e1:3"}
    status, out, err = run("--tail", "--after", "e1:3", "--limit", "1", "--query", "A/B")
    assert (status, out.split()[4]) == (0, '4:{"symbol":"A/B","price":4.0}')
    assert "items e1:0 to e1:3 are gone" in err


def test_decision_and_emergency_stop(run: Run) -> None:
    status, out, _ = run("--ai-decision", "A/B")
    assert status == 0
    assert "BUY  A/B" in out
    assert "timeout" in out
    assert json.loads(run("--ai-decision", "A/B", "C/D", "--json")[1])["symbols"] == ["A/B", "C/D"]
    assert "stopped on every node" in run("--emergency-stop")[1]
    assert json.loads(run("--emergency-stop", "--json")[1]) == {"stopped": True}


def test_trading_is_started_shown_and_stopped(node: StubNode, run: Run) -> None:
    status, out, _ = run("--start-trading", "balanced", "--symbol", "A/B,C/B", "--quote", "B")
    assert status == 0
    assert "trading balanced on paper:USD (paper) profit 1.5" in out
    assert "A/B" in out
    wish = {"mode": "balanced", "broker": "paper", "symbols": ["A/B", "C/B"], "quote": "B"}
    assert node.seen[-1][1:] == ("/api/context/trading/start", wish)
    assert "trading balanced on paper:USD" in run("--status")[1]
    assert json.loads(run("--stop-trading", "--json")[1])["mode"] == "balanced"
    assert node.seen[-1][1] == "/api/context/trading/stop"


@pytest.mark.parametrize(
    ("typed", "status"), [("trade real money on binance\n", 0), ("yes\n", 2), ("", 2)]
)
def test_real_money_needs_a_confirmation_typed_on_a_terminal(
    node: StubNode, run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, status: int
) -> None:
    asked = ("--start-trading", "balanced", "--live-trading")
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert run(*asked)[0] == 2  # no terminal
    main, terminal = os.openpty()
    try:
        os.write(main, (typed or "\x04").encode())
        with os.fdopen(terminal) as keyboard:
            monkeypatch.setattr(sys, "stdin", keyboard)
            assert run(*asked)[0] == status
    finally:
        os.close(main)
    started = [body for _, path, body in node.seen if path.endswith("/start")]
    assert len(started) == (status == 0)
    if started:
        assert started[0]["confirm"] == "trade real money on binance"
        assert (started[0]["live"], started[0]["broker"]) == (True, "ccxt")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_replay_sends_everything_once(
    node: StubNode, run: Run, tmp_path: Path, suffix: str
) -> None:
    items = trades(2500)
    raw = write(tmp_path / "plain", items).read_bytes()
    packed = {"": raw, ".gz": gzip.compress(raw), ".zst": zstandard.compress(raw)}
    path = tmp_path / f"r.ndjson{suffix}"
    path.write_bytes(packed[suffix])
    status, out, err = run("--replay", str(path), "--speed", "0", "--json")
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert summary.pop("seconds") > 0
    assert summary == {
        "items": 2500,
        "batches": 3,
        "retries": 0,
        "first_cursor": "e1:0",
        "last_cursor": "e1:2499",
        "late_s": 0.0,
    }
    assert [item["data"] for item in node.items] == [item["data"] for item in items]


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded data is not here")
def test_replay_survives_restarts_of_the_node(node: StubNode, run: Run) -> None:
    """The node dies again and again: before, while and after it stores a request."""
    requests = [0]
    threads: list[threading.Thread] = []

    def restart() -> None:
        node.kill()
        node.start()

    def fault(count: int) -> None:
        requests[0] += 1
        if requests[0] % 4 == 0:
            threads.append(threading.Thread(target=restart))
            threads[-1].start()
        if requests[0] % 5 == 0:
            node.hang_up_after_storing = 1
        if requests[0] % 7 == 0:
            node.refuse = [503]

    node.on_ingest = fault
    status, out, _ = run("--replay", str(RECORDED), "--speed", "1000", "--json")
    for thread in threads:
        thread.join()
    with gzip.open(RECORDED) as lines:
        wanted = [json.loads(line) for line in lines]
    summary = json.loads(out)
    assert status == 0
    assert (summary["items"], summary["last_cursor"]) == (9757, "e1:9756")
    assert summary["retries"] > 0
    assert [item["data"] for item in node.items] == [item["data"] for item in wanted]


def test_replay_keeps_the_recordings_pace(node: StubNode, run: Run, tmp_path: Path) -> None:
    arrivals: list[tuple[float, int]] = []
    node.on_ingest = lambda count: arrivals.append((time.monotonic(), count))
    path = write(tmp_path / "r", trades(100))  # 10 ms apart: 0.99 s
    started = time.monotonic()
    summary = json.loads(run("--replay", str(path), "--speed", "4", "--json")[1])
    assert summary["seconds"] >= 0.247
    assert summary["batches"] == 5  # 50 ms of pace each
    done = 0
    for at, count in arrivals:
        done += count
        assert at - started >= (done - 1) / 400 - 0.0501


def test_replay_stops_at_a_bad_line(node: StubNode, run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "r", trades(3))
    path.write_text(path.read_text() + "\n{oops\n" + path.read_text())
    status, out, err = run("--replay", str(path), "--speed", "0")
    assert (status, out) == (1, "")
    assert "line 5 is not an item" in err
    assert "acknowledged up to line 3" in err
    assert len(node.items) == 3


def test_replay_names_the_line_that_the_node_refused(
    node: StubNode, run: Run, tmp_path: Path
) -> None:
    bad = trades(1)
    bad[0]["data"]["price"] = -1.0
    path = write(tmp_path / "r", trades(1000) + trades(2) + bad)
    status, _, err = run("--replay", str(path), "--speed", "0")
    assert status == 1
    assert "line 1003: data.price must be >= 0; acknowledged up to line 1000" in err


def test_replay_tells_of_damage(node: StubNode, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.gz"
    items = trades(50_000)
    whole = gzip.compress(write(tmp_path / "plain", items).read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    status, _, err = run("--replay", str(path), "--speed", "0")
    assert status == 1
    assert "ended before the end-of-stream" in err
    assert f"acknowledged up to line {len(node.items)}" in err
    assert [item["data"] for item in node.items] == [
        item["data"] for item in items[: len(node.items)]
    ]
    (tmp_path / "empty").touch()
    assert json.loads(run("--replay", str(tmp_path / "empty"), "--json")[1])["items"] == 0


def test_replay_gives_up(node: StubNode, run: Run, tmp_path: Path) -> None:
    node.refuse = [507] * 1000
    path = write(tmp_path / "r", trades(3))
    status, _, err = run("--replay", str(path), "--speed", "0", "--give-up-after", "0.2")
    assert status == 1
    assert "refused_507" in err
    assert "no line is acknowledged" in err


def test_replay_stops_on_ctrl_c(node: StubNode, run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "r", trades(1000) + trades(1, timestamp=5000.0))

    def interrupt_when_stored() -> None:
        with node.changed:
            node.changed.wait_for(lambda: len(node.items) == 1000, 10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_when_stored)
    # Who runs the tests in the background may have them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        status, _, err = run("--replay", str(path), "--speed", "100")
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 1
    assert "interrupted; acknowledged up to line" in err


COMMAND_LINES = """\
help
search "price":3
search '"price":3'

latest --limit 2
tail --after e1:1 --limit 1 --json
item 2
item two
decide A/B
decisions
models
status
stats
nonsense
quit
stats
"""


def test_interactive_reads_commands_from_a_pipe(
    node: StubNode, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.store(trades(5))
    monkeypatch.setattr(sys, "stdin", io.StringIO(COMMAND_LINES))
    status, out, err = run("--interactive")
    assert status == 2
    assert all(f"\n{name}" in f"\n{out}" for name in COMMANDS)
    assert out.count('{"symbol":"A/B","price":3.0}') == 2  # found, and among the latest
    assert json.loads(next(line for line in out.splitlines() if line[0] == "{"))["offset"] == 2
    assert err.count("error:") == 2
    assert "there is no command nonsense" in err
    assert sum(path == "/api/context/stats" for _, path, _ in node.seen) == 2


def test_interactive_completes_what_the_node_holds(node: StubNode) -> None:
    node.store(trades(2))
    with Client(node.url) as client:
        known = Known(client)
        known.refresh()
        node.kill()
        known.refresh()
    words = Words(COMMANDS, known)

    def completed(text: str) -> list[str]:
        return [each.text for each in words.get_completions(Document(text), CompleteEvent())]

    assert completed("st") == ["stats", "status"]
    options = ["--deadline-ms", "--coverage", "--horizon", "--json"]
    assert completed("decide ") == ["A/B", *options]
    assert completed("search x --type t") == ["trading_data"]
    assert completed("tail --symbol A") == ["A/B"]
    assert completed("latest --li") == ["--limit"]


def test_history_has_a_place() -> None:
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/context-media-server/history")
    assert history_path({"HOME": "/h"}) == Path("/h/.cache/context-media-server/history")
