"""Real engines for tests: free ports, the node's own way of running them."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from nodes.adapters.nats_client import connect
from nodes.adapters.nats_server import find_engine
from nodes.engine import Address
from nodes.errors import EngineMissing
from server.child import SETTINGS
from server.config import Settings, load
from shared_storage.adapters.stream_jetstream import JetStream
from tests.node_process import ROOT, free_port, wait_for

T = TypeVar("T")

SECRET = "correct-horse-battery"


def need_engine() -> None:
    """Skip the test where there is no nats-server."""
    try:
        find_engine()
    except EngineMissing as exc:
        pytest.skip(str(exc))


def free_address() -> Address:
    """An address whose engine's ports are free too."""
    return Address("127.0.0.1", free_port())


class Engine:
    """One engine as a node runs it, without the node."""

    def __init__(self, folder: Path, own: Address, peers: Sequence[Address] = ()) -> None:
        self.folder, self.own, self.peers = folder, own, peers or [own]
        self._settings = settings_of(self, folder)
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "engine.out"

    def start(self) -> Engine:
        """Start it and wait until clients can connect."""
        told, tell = os.pipe()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        env = {
            **os.environ,
            SETTINGS: self._settings.to_json(),
            "CONTEXT_READY_FD": str(tell),
            "PYTHONPATH": str(ROOT),
        }
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server.engine"],
                env=env,
                pass_fds=(tell,),
                stderr=out,
                cwd=ROOT,
            )
        os.close(tell)
        with os.fdopen(told) as pipe:
            line = pipe.readline()
        assert line.startswith("ready "), (line, self._log.read_text())
        return self

    @property
    def server(self) -> psutil.Process:
        """The process of nats-server."""
        assert self.process
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def kill(self) -> None:
        """As a power cut: nobody is asked."""
        assert self.process
        server = self.server
        self.process.kill()
        self.process.wait()
        self.process = None
        wait_for(lambda: not is_alive(server), "nats-server to go with its parent")

    def stop(self) -> int:
        """Ask it to end; the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(10)
        self.process = None
        return code


def settings_of(engine: Engine, folder: Path) -> Settings:
    """The settings of a node on this engine, with its data in a folder."""
    return load(
        {
            "node_id": f"n{engine.own.port}",
            "port": engine.own.port,
            "data_dir": str(folder),
            "peers": ",".join(map(str, engine.peers)),
            "cluster_secret": SECRET,
        },
        {},
    )


def let_go_of_sockets() -> None:
    """Collect what nats-py dropped without closing, so that no later test hears of it.

    For the teardown of a test that is marked to ignore PytestUnraisableExceptionWarning.
    """
    gc.collect()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def sockets_of(process: psutil.Process) -> set[int]:
    """Ports that a process listens on."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = {c.laddr.port for c in process.net_connections() if c.status == "LISTEN"}
        if found:
            return found
        time.sleep(0.01)
    return set()


class Streams:
    """Streams on one real engine; the client runs on a loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(folder, free_address())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)

    def __enter__(self) -> Streams:
        self.engine.start()
        self._thread.start()
        self.client = self.do(connect([self.engine.own], SECRET, tls=None))
        return self

    def __exit__(self, *exc: object) -> None:
        self.do(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.engine.stop()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the client's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def fresh(self, *, max_bytes: int = 1 << 30) -> JetStream:
        """A new stream."""
        name = f"LOG{secrets.token_hex(4)}"
        return self.do(JetStream.open(self.client, name, replicas=1, max_bytes=max_bytes))
