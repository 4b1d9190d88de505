"""The engine as a node's child: starts, keeps strangers out, goes with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import psutil
import pytest

from nodes.engine import CLIENT_USER, client_url, password
from tests.engines import (
    SECRET,
    Engine,
    free_address,
    is_alive,
    let_go_of_sockets,
    need_engine,
    sockets_of,
)
from tests.node_process import QUIET, ROOT, free_port, wait_for

# nats-py drops the socket of a connection that was refused, without closing it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _engine() -> Iterator[None]:
    need_engine()
    yield
    let_go_of_sockets()


def test_only_who_knows_the_secret_gets_in_and_the_file_is_private(tmp_path: Path) -> None:
    engine = Engine(tmp_path, free_address()).start()

    async def connect(secret: str) -> bool:
        client = await nats.connect(
            client_url(engine.own),
            user=CLIENT_USER,
            password=password(secret, "client"),
            allow_reconnect=False,
        )
        stored = (await client.jetstream().account_info()).streams == 0
        await client.close()
        return stored

    try:
        assert asyncio.run(connect(SECRET))
        with pytest.raises(nats.errors.Error):
            asyncio.run(connect("a-wrong-secret-here"))
        mode = (tmp_path / "engine" / "nats.conf").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert sockets_of(engine.server) == {engine.own.client_port}
    finally:
        assert engine.stop() == 0


def test_a_killed_parent_takes_nats_server_along(tmp_path: Path) -> None:
    engine = Engine(tmp_path, free_address()).start()
    engine.kill()
    engine.start()
    assert engine.stop() == 0


def witness(folder: Path, **env: str) -> subprocess.Popen[str]:
    port = str(free_port())
    return subprocess.Popen(
        [
            *(sys.executable, "app.py", "--node", "--witness", "--port", port),
            *("--data", str(folder), "--peers", f"127.0.0.1:{port}"),
        ],
        cwd=ROOT,
        env={**os.environ, **QUIET, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_witness_runs_the_engine_only_until_it_is_stopped(tmp_path: Path) -> None:
    node = witness(tmp_path, CONTEXT_CLUSTER_SECRET=SECRET)
    assert node.stdout
    assert node.stdout.readline().startswith("ready: witness ")
    family = psutil.Process(node.pid).children(recursive=True)
    assert len(family) == 2, "the engine and its thin parent"
    node.send_signal(signal.SIGTERM)
    _, errors = node.communicate(timeout=10)
    assert node.returncode == 0, errors
    assert not any(is_alive(process) for process in family)


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    node = witness(tmp_path, CONTEXT_CLUSTER_SECRET=SECRET)
    assert node.stdout
    node.stdout.readline()
    family = psutil.Process(node.pid).children(recursive=True)
    node.kill()
    node.communicate()
    wait_for(lambda: not any(is_alive(each) for each in family), "the engine to end")


def test_a_cluster_without_a_secret_does_not_start(tmp_path: Path) -> None:
    node = witness(tmp_path)
    _, errors = node.communicate(timeout=20)
    assert node.returncode == 1
    assert "CONTEXT_CLUSTER_SECRET" in errors
