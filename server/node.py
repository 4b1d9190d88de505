"""`--node`: the processes of one node, for the supervisor."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nodes.adapters.children import run_node
from nodes.supervisor import ChildSpec
from server.child import SETTINGS, WEB_WORKER
from server.config import Settings

# The libraries of the semantic worker would else start a thread for every core.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# At ten million items an arena for each of the agent's threads kept 160 MB that nobody used, and a
# threshold that grows with the largest block freed another 70. Told one of them, malloc would give
# back all but 128 KiB at each turn: fresh pages for what comes next were 0.5 µs an item. Pages of
# 2 MiB, where the kernel has them, leave a tenth of the faults and take no more memory in the end.
LEAN = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
ROOT = Path(__file__).resolve().parents[1]


def specs(settings: Settings) -> list[ChildSpec]:
    """Children in their order: the web process needs the agent, the agent the engine."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {SETTINGS: settings.to_json(), "PYTHONPATH": path}

    def child(
        name: str, more: Mapping[str, str], *, required: bool = True, waits: bool = False
    ) -> ChildSpec:
        argv = (sys.executable, "-m", f"server.{name.partition('-')[0]}")
        return ChildSpec(name, argv, {**env, **more}, 600, required, waits)

    engine = []
    if settings.peers and not settings.nats_url:
        engine.append(child("engine", {}))
    if settings.witness:
        return engine
    workers = []
    if settings.torch_worker:
        workers.append(child("worker", {}, required=False))
    if settings.semantic:
        workers.append(child("semantic", ONE_THREAD, required=False))
    agent = child("agent", LEAN, waits=True)
    web = [
        child(f"web-{n}" if n else "web", {WEB_WORKER: str(n)}, waits=True)
        for n in range(settings.web_workers)
    ]
    return [*engine, agent, *web, *workers]


def run(settings: Settings) -> int:
    """Run the node until it is stopped; returns the exit status."""

    def ready(told: Mapping[str, str]) -> None:
        if settings.witness:
            print(f"ready: witness {settings.node_id}, engine on {told['engine']}", flush=True)
            return
        print(f"ready: {told['web']} (node {settings.node_id}, {told['agent']})", flush=True)

    if settings.web_workers > 1:
        try:
            settings = _with_port(settings)
        except OSError as exc:
            print(f"port={settings.port}: {exc}; choose another with --port", file=sys.stderr)
            return 1
    return run_node(specs(settings), on_ready=ready)


def _with_port(settings: Settings) -> Settings:
    """With the port that all web processes will share, which nobody else listens on yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((settings.host, settings.port))
        return replace(settings, port=probe.getsockname()[1])
