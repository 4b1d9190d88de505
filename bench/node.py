"""A node to measure: started on a free port with a fresh folder, its CPU read per process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import requests

ROOT = Path(__file__).resolve().parents[1]
START_S = 60.0


class Node:
    """A running node; `cpu_s` sums user and system time by role since it started."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, data: Path) -> None:
        self.process, self.port, self.data = process, port, data
        self.url = f"http://127.0.0.1:{port}"

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of the agent, the web process, and all together."""
        used = {"agent": 0.0, "web": 0.0, "all": 0.0}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                spent = times.user + times.system
                role = {"server.agent": "agent", "server.web": "web"}.get(child.cmdline()[-1])
                used["all"] += spent
                if role:
                    used[role] += spent
        return used

    def rss_mb(self) -> dict[str, int]:
        """MiB of memory of each process, by role."""
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found[child.cmdline()[-1]] = child.memory_info().rss >> 20
        return found

    def disk_bytes(self) -> int:
        """Bytes of all files in its data folder."""
        return sum(path.stat().st_size for path in self.data.rglob("*") if path.is_file())


@contextmanager
def running(data: Path | None = None, **settings: str) -> Iterator[Node]:
    """A node without health samples and torch worker, stopped at the end.

    Its folder is `data`, or a fresh one that goes with it.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    quiet = {"HEALTH_INTERVAL_S": "0", "TORCH_WORKER": "false", "LOG_LEVEL": "warning"}
    env = os.environ | {f"CONTEXT_{k}": v for k, v in (quiet | settings).items()}
    with tempfile.TemporaryDirectory(prefix="context-bench-") as fresh:
        folder = data or Path(fresh)
        command = [sys.executable, "app.py", "--node", "--port", str(port), "--data", str(folder)]
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as process:
            try:
                node = Node(process, port, folder)
                _wait(node)
                yield node
            finally:
                process.terminate()
                process.wait(20)


def _wait(node: Node) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(requests.ConnectionError):
            if requests.get(f"{node.url}/readyz", timeout=5).ok:
                return
        time.sleep(0.01)
    raise SystemExit("the node did not become ready")
