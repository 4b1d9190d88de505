"""Real nodes for the tests of the interface: one for each way of serving, shared by all tests."""

from __future__ import annotations

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
