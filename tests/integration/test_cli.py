"""The command line against a real node, as separate processes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from context.client import Client

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "../shared/data/normalized"
TICKS = DATA / "ticks_binancefutures_BTCUSDT_20240808.ndjson.gz"
APP = [sys.executable, str(ROOT / "app.py")]


class Node:
    """A node of its own that can be killed and started again on the same port and data."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = (data / "node.log").open("ab")
        self._command = [*APP, "--node", "--port", str(self.port), "--data", str(data)]
        self._command += ["--health-interval", "0"]

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
        )
        assert self._process.stdout
        for line in self._process.stdout:
            if b"ready:" in line:
                return
        raise AssertionError(f"the node ended with {self._process.wait()}; see {self._log.name}")

    def kill(self) -> None:
        """`kill -9` of all its processes at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=15)
        self._log.close()

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*APP, *argv, "--url", self.url]
        return subprocess.run(
            command, input=stdin, text=True, capture_output=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("node"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.skipif(not TICKS.exists(), reason="the recorded data is not here")
def test_replay_through_a_crash_stores_every_item_once(node: Node) -> None:
    command = [*APP, "--replay", str(TICKS), "--speed", "100", "--json", "--url", node.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as replay:
        with Client(node.url) as client:
            for count, _ in enumerate(client.stream(source="binance_futures"), 1):
                if count == 20_000:
                    break
        node.kill()
        node.start()
        summary = json.loads(replay.communicate(timeout=120)[0])
    assert replay.returncode == 0
    with gzip.open(TICKS) as lines:
        wanted = [json.loads(line) for line in lines]
    assert summary["items"] == len(wanted) == 87_402
    assert summary["retries"] > 0
    assert stored(node, "binance_futures", len(wanted)) == wanted
    hits = json.loads(node.run("--search", '"trade_id":5266583935', "--json").stdout)["items"]
    assert [hit["data"]["price"] for hit in hits] == [61800.3]


def stored(node: Node, source: str, count: int) -> list[dict[str, object]]:
    """What the node holds of a source, as it was sent; asserts that there is no more of it."""
    with Client(node.url) as client:
        as_of = client.latest(limit=1)["as_of"]
        start = f"{as_of.partition(':')[0]}:-1"
        assert client.stats()["sources"][source] == count
        found = []
        for event in client.stream(start, source=source):
            names = ("type", "source", "timestamp", "data")
            found.append({name: event.data[name] for name in names})
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


def test_every_verb(node: Node) -> None:
    lines = "".join(
        json.dumps(
            {"type": "trading_data", "source": "cli", "timestamp": 1000 + n,
             "data": {"symbol": "CLI/USD", "price": 100 + n % 7, "volume": 1}}
        ) + "\n"
        for n in range(300)
    )  # fmt: skip
    sent = node.run("--replay", "-", "--speed", "0", stdin=lines)
    assert (sent.returncode, sent.stderr) == (0, "")
    found = node.run("--search", '"price":10[5-6]', "--regex", "--source", "cli", "--limit", "2")
    assert found.returncode == 0
    assert '"price":106' in found.stdout
    assert found.stdout.count("\n") == 2
    count = node.run("--search", "CLI/USD", "--count", "--since", "1200", "--until", "1209")
    assert int(count.stdout) in (9, 10)
    around = node.run("--search", '"timestamp":1150', "--context", "1").stdout
    assert [line.partition(" trading")[0][-6:-1] for line in around.splitlines()] == [
        *("9.000", "0.000", "1.000")
    ]
    decided = json.loads(node.run("--ai-decision", "CLI/USD", "--json").stdout)
    assert decided["final_decision"] in ("buy", "sell", "hold")
    assert len(decided["votes"]) >= 3
    assert decided["decision_id"] in node.run("--interactive", stdin="decisions\n").stdout
    assert "CLI/USD" in node.run("--ai-decision", "CLI/USD").stdout
    assert node.run("--emergency-stop").returncode == 0
    assert "emergency stop" in node.run("--status").stdout
    status = json.loads(node.run("--status", "--json").stdout)
    assert status["ready"] is True
    assert status["nodes"]["nodes"][0]["state"] == "alive"


def test_the_next_address_is_asked_where_nobody_answers(node: Node) -> None:
    several = f"http://127.0.0.1:1,{node.url}"
    command = [*APP, "--url", several, "--status", "--json"]
    found = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)
    assert (found.returncode, json.loads(found.stdout)["ready"]) == (0, True)


def test_refusals_name_the_reason(node: Node) -> None:
    bad = node.run("--search", "(", "--regex")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "bad_pattern" in bad.stderr
    assert node.run("--search", "x", "--before", "zzz:1").returncode == 1
    line = '{"type":"trading_data","data":{"symbol":"A","price":-1}}\n'
    refused = node.run("--replay", "-", stdin='{"type":"note","data":{"a":1}}\n' + line)
    assert refused.returncode == 1
    assert "line 2: data.price" in refused.stderr
    assert "no line is acknowledged" in refused.stderr


def test_every_command_of_the_prompt(node: Node) -> None:
    commands = "help\nlatest --limit 3\nitem 0\nmodels\nstats\nstatus\ndecisions --limit 2\n"
    prompt = node.run("--interactive", stdin=commands + "tail --after x --limit 1\nquit\n")
    assert prompt.returncode == 1
    assert prompt.stderr.count("\n") == 1
    assert "bad_cursor" in prompt.stderr


def test_tail_follows_until_ctrl_c(node: Node) -> None:
    command = [*APP, "--tail", "--query", "needle", "--json", "--url", node.url]
    command += ["--after", json.loads(node.run("--search", "x", "--json").stdout)["as_of"]]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tail, Client(node.url) as client:  # fmt: skip
        assert tail.stdout
        for n in range(3):
            client.ingest(
                [{"type": "note", "data": {"hay": n}}, {"type": "note", "data": {"needle": n}}]
            )
            assert json.loads(tail.stdout.readline())["data"] == {"needle": n}
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=10) == ("", "")
    assert tail.returncode == 0


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._fd, theirs = pty.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = subprocess.Popen(command, env=environ, start_new_session=True, **streams)
        os.close(theirs)
        self.shown = ""

    def type(self, keys: str) -> None:
        """Press keys, and forget what was shown before."""
        self.shown = ""
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str) -> None:
        """Read until the terminal shows a text."""
        deadline = time.monotonic() + 10
        while text not in self.shown:
            ready, _, _ = select.select([self._fd], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{text!r} is not in {self.shown!r}"
            self.shown += os.read(self._fd, 65536).decode(errors="replace")
            if "\x1b[6n" in self.shown:  # the prompt asks where the cursor is
                self.shown = self.shown.replace("\x1b[6n", "")
                os.write(self._fd, b"\x1b[1;1R")

    def close(self) -> None:
        """End the program if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


def test_the_prompt_at_a_terminal(node: Node, tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
    with Client(node.url) as client:
        client.ingest({"type": "prompt_note", "source": "s", "data": {"symbol": "PTY/USD"}})
        terminal = Terminal([*APP, "--interactive", "--url", node.url], environ)
        try:
            terminal.wait_for("context>")
            terminal.type("lat\t --type prompt\t --limit 5\r")  # both words are completed
            terminal.wait_for('{"symbol":"PTY/USD"}')
            terminal.wait_for("context>")
            terminal.type("tail --type prompt_note --after " + client.latest()["as_of"] + "\r")
            terminal.wait_for("\n")
            client.ingest({"type": "prompt_note", "data": {"seen": "live"}})
            terminal.wait_for('{"seen":"live"}')
            terminal.shown = ""
            terminal.process.send_signal(signal.SIGINT)
            terminal.wait_for("context>")
            terminal.type("\x04")
            assert terminal.process.wait(timeout=10) == 0
        finally:
            terminal.close()
    history = (tmp_path / "context-media-server" / "history").read_text()
    assert "+latest --type prompt_note --limit 5" in history


def test_a_reader_that_has_seen_enough_is_no_error(node: Node) -> None:
    search = " ".join([*APP, "--search", "x", "--limit", "10000", "--url", node.url])
    with Client(node.url) as client:
        client.ingest([{"type": "note", "data": {"x": "y" * 1000, "n": n}} for n in range(2000)])
    shell = f"set -o pipefail; {search} --json | head -c 10 >/dev/null && {search} | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_search_then_follow_across_a_crash(node: Node) -> None:
    def store(*numbers: int) -> None:
        with Client(node.url) as client:
            client.ingest([{"type": "grepped", "data": {"n": n}} for n in numbers])

    store(*range(6))
    argv = [*APP, "--search", "grepped", "--follow", "--limit", "4", "--json", "--url", node.url]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follow:
        assert follow.stdout is not None
        seen = [json.loads(follow.stdout.readline()) for _ in range(4)]  # oldest first
        store(6, 7)
        seen += [json.loads(follow.stdout.readline()) for _ in range(2)]
        node.kill()
        node.start()
        store(8)
        seen.append(json.loads(follow.stdout.readline()))
        follow.send_signal(signal.SIGINT)
        rest, complaints = follow.communicate(timeout=20)
    assert [item["data"]["n"] for item in seen] == [2, 3, 4, 5, 6, 7, 8]
    assert all(set(item) == {*seen[0]} for item in seen)
    assert (rest, follow.returncode) == ("", 0)
    assert complaints.count("trying again") == 1
