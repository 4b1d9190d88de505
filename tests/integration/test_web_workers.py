"""Several web processes on one port: no client has to know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.faults.producers import Producers
from tests.faults.storm import in_batches
from tests.faults.test_faults import lines
from tests.node_process import ROOT, NodeProcess, wait_for
from tests.streaming import IoClient, SseReader


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path, None, "--web-workers", "2") as running:
        wait_for(lambda: [connections(each, "LISTEN") for each in webs(running)] == [1, 1], "both")
        yield running


def webs(node: NodeProcess) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid, ran in node.pids().items() if "server.web" in ran]


def connections(process: psutil.Process, status: str) -> int:
    """How many TCP sockets of a process are in this state."""
    return len([each for each in process.net_connections("tcp") if each.status == status])


def test_subscribers_of_both_processes_are_counted_and_get_everything(node: NodeProcess) -> None:
    with ExitStack() as stack:
        readers = [stack.enter_context(SseReader(node)) for _ in range(24)]
        assert len(webs(node)) == 2
        assert all(
            connections(each, "ESTABLISHED") for each in webs(node)
        )  # 1 in 8 million that one has none
        stats = node.client.get("/api/context/stats").json()
        assert stats["subscribers"] == 24
        assert "context_subscribers 24.0" in node.client.get("/metrics").text
        for number in range(20):
            node.client.ingest({"type": "note", "data": {"n": number}})
        for reader in readers:
            assert [item["offset"] for item in reader.wait_items(20)] == list(range(20))


def test_who_polls_is_served_wherever_its_requests_come(node: NodeProcess) -> None:
    """Each request of these clients takes a connection of its own, and so any process."""
    with ExitStack() as stack:
        clients = [stack.enter_context(IoClient(node, transport="polling")) for _ in range(4)]
        for client in clients:
            client.polls_anew()
        names = [client.call("subscribe", {})["subscription"] for client in clients]
        for number in range(50):
            node.client.ingest({"type": "note", "data": {"n": number}})
        for client, name in zip(clients, names, strict=True):
            assert [item["offset"] for item in client.wait_items(name, 50)] == list(range(50))


def test_one_is_killed_and_the_others_go_on(node: NodeProcess) -> None:
    before = node.client.ingest({"type": "first", "data": {}})["cursor"]
    producers = Producers(node.port, in_batches(lines(4000), 20), threads=2, seed=3)
    with ExitStack() as stack:
        readers = [stack.enter_context(SseReader(node, after=before)) for _ in range(12)]
        producers.start()
        try:
            wait_for(lambda: producers.acknowledged > 20, "some batches")
            os.kill(webs(node)[0].pid, signal.SIGKILL)
            wait_for(lambda: len(webs(node)) == 2, "the process to be started again")
            producers.wait(200)
        finally:
            producers.stop()
        wanted = list(range(1, 4001))
        cut = [reader for reader in readers if reader.ended]
        assert 0 < len(cut) < 12
        for reader in readers:
            seen = [item["offset"] for item in reader.items()]
            if reader.ended:
                after = f"{before.split(':')[0]}:{seen[-1] if seen else 0}"
                with SseReader(node, after=after) as rest:
                    more = rest.wait_items(4000 - len(seen))
                seen += [item["offset"] for item in more]
            else:
                seen = [item["offset"] for item in reader.wait_items(4000)]
            assert seen == wanted


def test_more_than_one_needs_eventlet(tmp_path: Path) -> None:
    flags = ["--web-workers", "2", "--async-mode", "threading", "--port", "0"]
    command = [sys.executable, "app.py", "--node", "--data", str(tmp_path), *flags]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "web_workers=2: needs async_mode eventlet" in done.stderr
