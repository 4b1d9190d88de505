"""Faults other than a kill: a frozen process, a torn log, a second owner, a stop in full flight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import websocket

from tests.faults.checker import History, violations
from tests.faults.node import HurtNode
from tests.faults.producers import Producers
from tests.faults.storm import contents, in_batches, send_all
from tests.faults.subscribers import read_log
from tests.node_process import ROOT, free_port, wait_for

FROZEN_S = 3.0


def lines(count: int, *, start: int = 0) -> list[bytes]:
    """Distinct items as NDJSON lines of 190 bytes or so."""
    pad = "x" * 100
    return [
        b'{"type":"note","source":"faults","timestamp":%d,"data":{"number":%d,"pad":"%b"}}\n'
        % (number, number, pad.encode())
        for number in range(start, start + count)
    ]


def assert_kept(node: HurtNode, bodies: dict[str, bytes], producers: Producers) -> None:
    """All batches are acknowledged, and the log keeps every promise."""
    assert producers.acknowledged == len(bodies)
    found = violations(History(contents(bodies), producers.acks, read_log(node.client)))
    assert not found, "\n".join(found)


def test_a_frozen_agent_loses_nothing_and_breaks_no_connection(tmp_path: Path) -> None:
    bodies = in_batches(lines(40_000), 100)
    with HurtNode(tmp_path) as node:
        producers = Producers(node.port, bodies, threads=3, seed=1)
        producers.start()
        try:
            producers.wait(20)
            with node.stopped("agent"):
                started = time.monotonic()
                assert node.client.get("/healthz", timeout=1).status_code == 200
                time.sleep(FROZEN_S - (time.monotonic() - started))
                assert producers.acknowledged < len(bodies)
            producers.wait(len(bodies))
        finally:
            producers.stop()
        assert set(producers.told) == {"201"}
        assert_kept(node, bodies, producers)


def test_socket_io_connects_while_the_agent_is_away(tmp_path: Path) -> None:
    with HurtNode(tmp_path) as node:
        os.kill(node.child("server.agent"), signal.SIGKILL)
        wait_for(lambda: node.client.get("/readyz").status_code == 503, "the agent to be away")
        address = node.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        with closing(websocket.create_connection(address, timeout=5)) as socket:
            assert socket.recv()[:1] == "0"
            socket.send("40")
            assert str(socket.recv()).startswith("40{")
            node.wait_ready()
            term = node.client.ingest({"type": "note", "data": {}})["term"]
            told = {"term": 0}
            while told["term"] < term:  # first what was known last, then the new term
                name, told = json.loads(str(socket.recv())[2:])
                assert name == "leader"


def test_sigterm_in_full_flight_stops_in_time_and_keeps_what_it_acknowledged(
    tmp_path: Path,
) -> None:
    bodies = in_batches(lines(60_000), 50)
    with HurtNode(tmp_path) as node:
        producers = Producers(node.port, bodies, threads=4, seed=2)
        producers.start()
        try:
            producers.wait(50)
            node.stop()  # asserts: status 0 within 10 s, no process left
            before = producers.acknowledged
            assert 0 < before < len(bodies)
            node.start()
            producers.wait(len(bodies))
        finally:
            producers.stop()
        assert_kept(node, bodies, producers)


def test_a_second_node_is_refused_the_data_directory(tmp_path: Path) -> None:
    with HurtNode(tmp_path) as node:
        node.client.ingest({"type": "note", "data": {}})
        command = [sys.executable, "app.py", "--node", "--data", str(tmp_path)]
        command += ["--port", str(free_port())]
        second = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
        assert second.returncode == 1
        said = f"data directory {tmp_path} is in use by process {node.child('server.agent')}"
        assert said in second.stdout + second.stderr
        assert "Traceback" not in second.stdout + second.stderr
        node.client.ingest({"type": "note", "data": {}})
        assert node.client.newest().endswith(":1")


def _cut(wal: Path, intact: int) -> None:
    with wal.open("r+b") as file:
        file.truncate(intact + (wal.stat().st_size - intact) // 2)


def _garbage(wal: Path, intact: int) -> None:
    with wal.open("r+b") as file:
        file.seek(intact + (wal.stat().st_size - intact) // 3)
        file.write(b"\xa5" * 5000)


def _appended(wal: Path, intact: int) -> None:
    with wal.open("ab") as file:
        file.write(b"\x5a" * 30_000)


@pytest.mark.parametrize("damage", [_cut, _garbage, _appended])
def test_a_torn_log_tail_costs_no_more_than_the_tail(
    damage: Callable[[Path, int], None], tmp_path: Path
) -> None:
    """What was written before the damaged place is all there; what was not is there wholly or
    not at all, and sent again it is there once."""
    first, second = in_batches(lines(3000), 100), in_batches(lines(3000, start=3000), 100)
    second = {f"second-{key}": body for key, body in second.items()}
    wal = tmp_path / "log.db-wal"
    with HurtNode(tmp_path) as node:
        acks = send_all(node, first)
        intact = wal.stat().st_size
        acks_of_second = send_all(node, second)
        node.kill_and_leave("everything")
        damage(wal, intact)
        node.start()
        history = History(contents(first | second), acks, read_log(node.client))
        assert not (found := violations(history)), "\n".join(found)
        if damage is _appended:
            assert len(history.log) == 6000
        else:
            assert 3000 <= len(history.log) < 6000
        again = send_all(node, second)
        history = History(contents(first | second), acks + again, read_log(node.client))
        assert not (found := violations(history)), "\n".join(found)
        # The same order: they come to lie where they were.
        assert [ack.cursor for ack in acks_of_second] == [ack.cursor for ack in again]
