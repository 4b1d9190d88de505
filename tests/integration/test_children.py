"""The supervisor with real processes: restarts, order of stop, no orphan, never over 10 s."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# argv: name, folder, behaviour. Appends to `log` what happens to it, in the order it happens.
CHILD = """
import os, pathlib, signal, subprocess, sys, time
from nodes.adapters.parent import announce_ready, announce_refused, die_with_parent
die_with_parent()
name, folder, how = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
def note(what):
    with open(folder / "log", "a") as log:
        log.write(f"{what} {name} {os.getpid()}\\n")
def leave(*_):
    note("term")
    if how != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note("start")
if how == "refuse":
    announce_refused("port 80 is\\nin use")
    sys.exit(1)
if how == "crash":
    sys.exit(3)
if how == "family":
    note(f"grandchild {subprocess.Popen(['sleep', '300']).pid}")
announce_ready(f"{name} here")
while True:
    time.sleep(60)
"""

NODE = """
import logging, pathlib, sys
from nodes.adapters.children import run_node
from nodes.supervisor import ChildSpec
logging.basicConfig(level="WARNING", format="%(message)s")
folder = sys.argv[1]
specs = [
    ChildSpec(name, (sys.executable, f"{folder}/child.py", name, folder, how), {"MARK": name})
    for name, how in (pair.split("=") for pair in sys.argv[2:])
]
def ready(details):
    pathlib.Path(folder, "ready").write_text(repr(dict(details)))
sys.exit(run_node(specs, on_ready=ready, stop_grace_s=2.0))
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


def wait_gone(pid: int) -> None:
    wait_for(lambda: not alive(pid), f"process {pid} to be gone", 5)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Node:
    """A supervisor of small scripts, in a folder of its own."""

    def __init__(self, folder: Path, *children: str) -> None:
        self.folder = folder
        (folder / "child.py").write_text(CHILD)
        (folder / "node.py").write_text(NODE)
        self.process = subprocess.Popen(
            [sys.executable, folder / "node.py", folder, *children],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def log(self, what: str) -> list[tuple[str, int]]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        words = [line.rsplit(" ", 2) for line in lines]
        return [(name, int(pid)) for kind, name, pid in words if kind == what]

    def pids(self) -> list[int]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(word) for line in lines for word in line.split() if word.isdigit()]

    def until_ready(self) -> None:
        wait_for((self.folder / "ready").exists, "the node to be ready")

    def stop(self, *signals: signal.Signals) -> tuple[int, str, float]:
        began = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.1)  # two equal signals at the same moment are one
        _, told = self.process.communicate(timeout=15)
        return self.process.returncode, told, time.monotonic() - began


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def start(*children: str) -> Node:
        nodes.append(Node(tmp_path, *children))
        return nodes[-1]

    yield start
    for each in nodes:
        each.process.kill()
        each.process.communicate()
        for pid in each.pids():
            wait_gone(pid)


def test_starts_in_order_and_stops_in_reverse(node: Callable[..., Node]) -> None:
    running = node("agent=good", "worker=good", "web=good")
    running.until_ready()
    assert (running.folder / "ready").read_text() == repr(
        {"agent": "agent here", "worker": "worker here", "web": "web here"}
    )
    code, told, seconds = running.stop(signal.SIGTERM)
    assert [name for name, _ in running.log("start")] == ["agent", "worker", "web"]
    assert [name for name, _ in running.log("term")] == ["web", "worker", "agent"]
    assert (code, told) == (0, "")
    assert seconds < 2
    assert not any(alive(pid) for pid in running.pids())


def test_a_killed_child_is_restarted_and_the_others_stay(node: Callable[..., Node]) -> None:
    running = node("agent=good", "web=good")
    running.until_ready()
    for started in (3, 4):
        os.kill(dict(running.log("start"))["web"], signal.SIGKILL)
        wait_for(lambda: len(running.log("start")) == started, "the restart")  # noqa: B023
    code, told, _ = running.stop(signal.SIGINT)
    assert [name for name, _ in running.log("start")] == ["agent", "web", "web", "web"]
    assert "web ended (SIGKILL); starting it again in 0.2 s" in told
    assert code == 0


def test_no_child_outlives_a_killed_supervisor(node: Callable[..., Node]) -> None:
    running = node("agent=good", "worker=stubborn", "web=good")
    running.until_ready()
    running.process.kill()
    running.process.wait()
    assert len(running.pids()) == 3
    for pid in running.pids():
        wait_gone(pid)


def test_a_supervisor_killed_while_children_start_leaves_none(node: Callable[..., Node]) -> None:
    running = node("agent=good", "web=good")
    wait_for(lambda: running.log("start"), "the first child")
    running.process.kill()
    running.process.wait()
    (agent,) = [pid for name, pid in running.log("start") if name == "agent"]
    wait_gone(agent)


def test_a_killed_child_takes_along_what_it_had_started(node: Callable[..., Node]) -> None:
    running = node("agent=family")
    running.until_ready()
    child, grandchild = running.log("start")[0][1], running.pids()[1]
    assert alive(grandchild)
    os.kill(child, signal.SIGKILL)
    wait_gone(grandchild)


def test_a_stubborn_child_is_killed_when_the_grace_is_over(node: Callable[..., Node]) -> None:
    running = node("agent=good", "web=stubborn")
    running.until_ready()
    code, told, seconds = running.stop(signal.SIGTERM)
    assert [name for name, _ in running.log("term")] == ["web", "agent"]
    assert code == 1
    assert "stopped: web did not stop within 2 s" in told
    assert 1.9 < seconds < 4
    assert not any(alive(pid) for pid in running.pids())


def test_a_second_interrupt_kills_at_once(node: Callable[..., Node]) -> None:
    running = node("agent=stubborn", "web=stubborn")
    running.until_ready()
    code, told, seconds = running.stop(signal.SIGINT, signal.SIGINT)
    assert code == 1
    assert "was not given time to stop" in told
    assert seconds < 1.5


def test_five_failed_starts_stop_the_node_and_say_why(node: Callable[..., Node]) -> None:
    running = node("agent=good", "web=crash")
    code, told, _ = running.stop()
    assert code == 1
    assert told.splitlines()[-1] == "stopped: web cannot start: exit status 3"
    assert [name for name, _ in running.log("start")] == ["agent"] + ["web"] * 5
    assert not any(alive(pid) for pid in running.pids())


def test_a_refusal_is_final_and_repeated_in_one_line(node: Callable[..., Node]) -> None:
    code, told, _ = node("agent=refuse").stop()
    assert (code, told) == (1, "stopped: agent cannot start: port 80 is in use\n")


def test_the_pipe_alone_ends_a_child_where_the_kernel_does_not(tmp_path: Path) -> None:
    script = """
import ctypes, sys
ctypes.CDLL = None  # any use of prctl would fail
sys.platform = "other"
from nodes.adapters.parent import announce_ready, die_with_parent
die_with_parent()
announce_ready()
import time
time.sleep(60)
"""
    told, tell = os.pipe()
    lifeline, watched = os.pipe()
    fds = {"CONTEXT_READY_FD": str(tell), "CONTEXT_PARENT_FD": str(lifeline)}
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, **fds, "CONTEXT_PARENT_PID": str(os.getpid()), "PYTHONPATH": str(ROOT)},
        pass_fds=(tell, lifeline),
    )
    os.close(tell)
    os.close(lifeline)
    with os.fdopen(told) as line:
        assert line.readline() == "ready\n"
    os.close(watched)  # as the kernel does for a dead parent
    assert child.wait(timeout=5) == 1
