"""Several real nodes on one machine, each with its engine, and what to ask of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from tests.engines import SECRET, need_engine
from tests.node_process import LOOPBACK, NodeProcess, free_port, wait_for

LED_S = 30.0
QUICK = {"CONTEXT_FOUND_AFTER_S": "0"}  # nobody has items that others must wait for


class Cluster:
    """Nodes `n0`, `n1`, ... in folders of their own; start them with `start`.

    Given `hosts`, they listen there, all on `port`, and are started through `enter`.
    """

    def __init__(
        self,
        folder: Path,
        size: int = 3,
        *args: str,
        env: Mapping[str, str] | None = None,
        hosts: Sequence[str] = (),
        port: int = 0,
        enter: Callable[[int], Sequence[str]] = lambda n: (),
    ) -> None:
        need_engine()
        hosts = hosts or [LOOPBACK] * size
        ports = [port or free_port() for _ in range(size)]
        peers = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
        self.nodes = [
            NodeProcess(
                folder / f"n{n}",
                port,
                "--id",
                f"n{n}",
                "--peers",
                peers,
                *args,
                env={**QUICK, "CONTEXT_CLUSTER_SECRET": SECRET, **(env or {})},
                host=host,
                enter=enter(n),
            )
            for n, (host, port) in enumerate(zip(hosts, ports, strict=True))
        ]

    def __getitem__(self, n: int) -> NodeProcess:
        return self.nodes[n]

    def start(self, which: Sequence[int] | None = None) -> None:
        """Start nodes together and wait until each is ready."""
        chosen = self.nodes if which is None else [self.nodes[n] for n in which]
        for node in chosen:
            node.launch()
        for node in chosen:
            node.wait_ready()

    def stop(self) -> None:
        """Kill what still runs."""
        for node in self.nodes:
            if node.pids():
                node.kill9()

    def leader(self, *, among: Sequence[int] | None = None, above: int = 0) -> int:
        """Number of the node that all of these say leads, in a term above the given one."""
        chosen = range(len(self.nodes)) if among is None else among
        found: list[dict[str, Any]] = []

        def agreed() -> bool:
            found[:] = [self.told(n) for n in chosen]
            first = found[0].get("leader")
            return (
                first is not None
                and all(each.get("leader") == first and each["term"] > above for each in found)
                and any(self.nodes[n].args[1] == first for n in chosen)
            )

        wait_for(agreed, f"one leader of {list(chosen)}: {found}", LED_S)
        return int(found[0]["leader"].removeprefix("n"))

    def told(self, n: int) -> dict[str, Any]:
        """What a node says of the cluster; {} where it does not answer."""
        with suppress(requests.RequestException, ValueError):
            answer = self.nodes[n].client.get("/api/nodes", timeout=5)
            if answer.status_code == 200:
                nodes: dict[str, Any] = answer.json()
                return nodes
        return {}

    def has(self, n: int, offset: int) -> None:
        """Wait until a node has applied an offset."""

        def there() -> bool:
            with suppress(requests.RequestException):
                return self.nodes[n].client.get(f"/api/context/items/{offset}").ok
            return False

        wait_for(there, f"offset {offset} on n{n}", LED_S)


@contextmanager
def cluster(folder: Path, size: int = 3, *args: str, **more: Any) -> Iterator[Cluster]:
    """A started cluster; its nodes end with the block."""
    made = Cluster(folder, size, *args, **more)
    try:
        made.start()
        yield made
    finally:
        made.stop()
