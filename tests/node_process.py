"""A real node for tests: `app.py --node` in a process of its own, on a free port.

Starting waits for `/readyz`. Stopping by SIGTERM demands what users are promised: gone within 10
seconds with status 0, and no process left behind.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import psutil
import requests

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"
READY_S = 120.0
STOP_S = 10.0
ENGINE_PORTS = (0, 10_000, 20_000)  # beside the web port
_SHARE = 300  # ports of one process of the tests
_OWN = 10_000 + _SHARE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_PORTS = cycle(random.sample(range(_OWN, _OWN + _SHARE), _SHARE))
QUIET = {"CONTEXT_TORCH_WORKER": "false", "CONTEXT_HEALTH_INTERVAL_S": "0"}


def free_port() -> int:
    """A TCP port that nobody listens on now, nor on those that a node's engine would have with it.

    All of them lie below those that the system gives to connections, and each process of the tests
    has its own: else one might be taken before the node that is to have it starts.
    """
    return next(port for port in _PORTS if all(_is_free(port + more) for more in ENGINE_PORTS))


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Wait until `condition()` is true; fails naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, such as where threads are to be green."""
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Api(requests.Session):
    """A session that takes paths of one node, each call bounded in time."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        super().__init__()
        self.trust_env = False  # no proxy of the machine stands between
        self.url, self._timeout_s = url, timeout_s

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        kwargs.setdefault("timeout", self._timeout_s)
        return super().request(method, self.url + url, *args, **kwargs)

    def ingest(self, items: Any, **headers: str) -> dict[str, Any]:
        """Store an item or a list of items, which must succeed; header names have underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.post("/api/context/ingest", json=items, headers=named)
        assert answer.status_code in (200, 201), answer.text
        acknowledged: dict[str, Any] = answer.json()
        return acknowledged

    def newest(self) -> str:
        """Cursor of the newest item."""
        cursor: str = self.get("/api/context/stats").json()["newest"]
        return cursor


class NodeProcess:
    """One node and its processes. `args` are further arguments, `env` further variables;
    `enter` is put before the command line, such as what runs it in a network namespace.

    By default the node takes no samples of its own and runs no torch worker, so that tests know
    every item in its log and it starts in about a second.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *args: str,
        env: Mapping[str, str] | None = None,
        host: str = LOOPBACK,
        enter: Sequence[str] = (),
    ) -> None:
        self.data_dir, self.port, self.args = data_dir, port or free_port(), args
        self.host, self._enter = host, enter
        self.env = {**QUIET, **(env or {})}
        self.url = f"http://{host}:{self.port}"
        self.client = Api(self.url)
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process is None:
            self.client.close()
        elif kind is None:
            self.stop()
        else:  # the failure of the test is the one to report
            self.kill9()

    @property
    def log(self) -> str:
        """What the node has written to standard output and error, over all its starts."""
        return (self.data_dir / "node.log").read_text(errors="replace")

    @property
    def errors(self) -> str:
        """The newest of that which is worth a look."""
        worth = ('"error"', '"critical"', " error ", " critical ")
        return "\n".join(
            [line for line in self.log.splitlines() if any(w in line for w in worth)][-20:]
        )

    def start(self) -> None:
        """Start the node and wait until it is ready."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the node."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "app.py", "--node", "--data", str(self.data_dir)]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CONTEXT_")}
        with (self.data_dir / "node.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._enter, *argv, "--host", self.host, "--port", str(self.port), *self.args],
                cwd=ROOT,
                env={**clean, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        """Wait until `/readyz` answers 200; fails with the node's output after two minutes."""
        deadline = time.monotonic() + READY_S
        while not self._ready():
            assert self._process is not None
            assert self._process.poll() is None, f"the node ended:\n{self.log[-4000:]}"
            assert time.monotonic() < deadline, f"not ready in {READY_S} s:\n{self.log[-4000:]}"
            time.sleep(0.02)
        self.pids()

    def pids(self) -> dict[int, str]:
        """The node's running processes: the supervisor first, each with its command line."""
        if self._process is None:
            return {}
        try:
            root = psutil.Process(self._process.pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return {}
        self._seen.update((process.pid, process) for process in family)
        return {process.pid: _command(process) for process in family if _runs(process)}

    def child(self, module: str) -> int:
        """Process id of the child that runs a module, such as `server.agent.main`."""
        return next(pid for pid, command in self.pids().items() if f"-m {module}" in command)

    def stop(self) -> None:
        """SIGTERM: the node must end within 10 s with status 0 and leave no process behind."""
        assert self._process is not None
        self.pids()
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_S)
            assert status == 0, f"ended with status {status}:\n{self.log[-4000:]}"
            self._assert_gone(STOP_S - (time.monotonic() - started))
        finally:
            self._clean_up()

    def kill9(self) -> None:
        """SIGKILL to the supervisor alone; every child must be gone within 5 s."""
        assert self._process is not None
        self.pids()
        self._process.kill()
        self._process.wait()
        try:
            self._assert_gone(5)
        finally:
            self._clean_up()

    def _ready(self) -> bool:
        try:
            return self.client.get("/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def _assert_gone(self, seconds: float) -> None:
        def left() -> list[str]:  # a zombie has ended: whoever inherits it may reap it later
            return [f"{p.pid}: {_command(p)}" for p in self._seen.values() if _runs(p)]

        deadline = time.monotonic() + seconds
        while left() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not left(), f"processes left behind: {left()}"

    def _clean_up(self) -> None:
        """End what is left, so that one failed test does not fail the next."""
        for process in self._seen.values():
            if _runs(process):
                process.kill()
        assert self._process is not None
        self._process.wait()
        self._process, self._seen = None, {}
        self.client.close()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return "gone"
