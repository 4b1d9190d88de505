"""Real nodes for the tests of the interface: one for each way of serving, shared by all tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node_process import Api, NodeProcess

MODES = ("eventlet", "threading")


@pytest.fixture(scope="session", params=MODES)
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    """A running node; its log is not empty, since other tests use it too."""
    folder = tmp_path_factory.mktemp(f"node-{request.param}")
    with NodeProcess(folder, None, "--id", "alpha", "--async-mode", request.param) as running:
        running.client.ingest({"type": "first", "data": {}})
        yield running


@pytest.fixture
def api(node: NodeProcess) -> Api:
    """Calls on the shared node."""
    return node.client


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node of the test's own, running, which it may stop, kill and start again."""
    with NodeProcess(tmp_path / "data", None, "--id", "alpha") as running:
        yield running


@pytest.fixture
def unharmed(node: NodeProcess) -> Iterator[None]:
    """After each attack the node answers within a second, and no process of it was replaced."""
    before = set(node.pids())
    yield
    # What an attack has broken stays so; what a busy machine delays once does not.
    assert min(_ordinary_request_s(node.client) for _ in range(3)) < 1
    assert set(node.pids()) == before


def _ordinary_request_s(api: Api) -> float:
    started = time.monotonic()
    api.ingest({"type": "still_well", "data": {}})
    found = api.post("/api/context/search", json={"query": "still_well", "limit": 1})
    assert len(found.json()["items"]) == 1
    return time.monotonic() - started
