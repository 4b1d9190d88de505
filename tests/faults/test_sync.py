"""Acknowledged means on disk: `kill -9` cannot tell, the order of system calls can."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.node import HurtNode, broken

CALLS = "fsync,fdatasync,pwrite64,write,sendto,sendmsg"

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")


def calls_during_a_post(node: HurtNode, folder: Path) -> list[str]:
    """The agent's system calls around one ingest: "write" and "sync" of the log, "answer"."""
    trace, pid = folder / "trace", str(node.child("server.agent"))
    strace = ["strace", "-f", "-y", "-s", "500", "-e", f"trace={CALLS}", "-o", str(trace)]
    with subprocess.Popen([*strace, "-p", pid], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        told = tracer.stderr.readline()
        if "attached" not in told:
            pytest.skip(f"strace may not look at the agent here: {told}")
        node.client.ingest({"type": "note", "data": {"text": "synced?"}})
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
    return [word for line in trace.read_text().splitlines() if (word := _kind(line))]


def _kind(line: str) -> str | None:
    if re.search(r"pwrite64\(\d+<[^>]*/log\.db(-wal)?>", line):
        return "write"
    if re.search(r"f(data)?sync\(\d+<[^>]*/log\.db(-wal)?>\) += 0", line) or re.search(
        r"<\.\.\. f(data)?sync resumed>.*= 0", line
    ):
        return "sync"
    return "answer" if "first_offset" in line and "send" in line else None


def is_durable_first(calls: list[str]) -> bool:
    """Whether something was written, and all that was written was synced before the answer."""
    answer = calls.index("answer")
    before = calls[:answer]
    return "write" in before and before[-1] == "sync" and "write" not in calls[answer:]


def test_an_item_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    with HurtNode(tmp_path) as node:
        calls = calls_during_a_post(node, tmp_path)
    assert is_durable_first(calls), calls


@pytest.mark.parametrize("build", ["never_sync", "acknowledge_before_commit"])
def test_a_build_that_answers_too_early_is_reported(build: str, tmp_path: Path) -> None:
    with HurtNode(tmp_path, env=broken(build)) as node:
        calls = calls_during_a_post(node, tmp_path)
    assert not is_durable_first(calls), calls
