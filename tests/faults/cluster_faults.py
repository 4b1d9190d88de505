"""What is done to a cluster: each fault by name, over when it returns, its nodes running again."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import requests

from tests.cluster import Cluster
from tests.node_process import NodeProcess, wait_for

AGENT, ENGINE = "server.agent", "server.engine"
SHORTEST_FREEZE_S, LONGEST_FREEZE_S = 0.5, 30.0


def kill_node(cluster: Cluster, chance: random.Random) -> None:
    """SIGKILL of the leader with everything on its machine, engine included; then a new start."""
    _kill(cluster[leader_of(cluster, chance)])


def kill_agent(cluster: Cluster, chance: random.Random) -> None:
    """SIGKILL of the leading process alone; its supervisor starts it again."""
    node = cluster[leader_of(cluster, chance)]
    os.kill(node.child(AGENT), signal.SIGKILL)
    node.wait_ready()


def kill_engine(cluster: Cluster, chance: random.Random) -> None:
    """SIGKILL of the engine beside the leader."""
    node = cluster[leader_of(cluster, chance)]
    for engine in engines(node):
        engine.kill()
    wait_for(lambda: any(True for _ in engines(node)), "the engine to come back")


def kill_follower(cluster: Cluster, chance: random.Random) -> None:
    """SIGKILL of a node that does not lead."""
    leader = leader_of(cluster, chance)
    _kill(cluster[chance.choice([n for n in range(len(cluster.nodes)) if n != leader])])


def kill_all(cluster: Cluster, chance: random.Random) -> None:
    """SIGKILL of every process of every node."""
    for node in cluster.nodes:
        _kill(node, start=False)
    cluster.start()


def restart_leader(cluster: Cluster, chance: random.Random) -> None:
    """SIGTERM: the leader hands over and ends; then a new start."""
    node = cluster[leader_of(cluster, chance)]
    node.stop()
    node.start()


def restart_all(cluster: Cluster, chance: random.Random) -> None:
    """SIGTERM to every node at once; then a new start of all."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(NodeProcess.stop, cluster.nodes))
    cluster.start()


def freeze_leader(cluster: Cluster, chance: random.Random) -> None:
    """SIGSTOP of the leading process for a while: it knows nothing of what happened meanwhile."""
    _freeze(cluster[leader_of(cluster, chance)].child(AGENT), chance)


def freeze_engine(cluster: Cluster, chance: random.Random) -> None:
    """SIGSTOP of the engine beside the leader."""
    for engine in engines(cluster[leader_of(cluster, chance)]):
        _freeze(engine.pid, chance)


def hand_over(cluster: Cluster, chance: random.Random) -> None:
    """An operator asks that another node leads."""
    leader = leader_of(cluster, chance)
    to = chance.choice([n for n in range(len(cluster.nodes)) if n != leader])
    with suppress(requests.RequestException):
        cluster[leader].client.post(f"/api/nodes/n{to}/lead")


FAULTS: dict[str, Callable[[Cluster, random.Random], None]] = {
    each.__name__: each
    for each in (
        kill_node,
        kill_agent,
        kill_engine,
        kill_follower,
        kill_all,
        restart_leader,
        restart_all,
        freeze_leader,
        freeze_engine,
        hand_over,
    )
}


@contextmanager
def frozen(node: NodeProcess) -> Iterator[None]:
    """A node whose leading process stands still."""
    pid = node.child(AGENT)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def leader_of(cluster: Cluster, chance: random.Random) -> int:
    """Who leads, or any node where there is none just now: faults do not wait for order."""
    for n in range(len(cluster.nodes)):
        leader = cluster.told(n).get("leader")
        if leader:
            return int(leader.removeprefix("n"))
    return chance.randrange(len(cluster.nodes))


def engines(node: NodeProcess) -> Iterator[psutil.Process]:
    """A node's engine, while it runs."""
    with suppress(psutil.NoSuchProcess, StopIteration):
        yield from psutil.Process(node.child(ENGINE)).children()


def _kill(node: NodeProcess, *, start: bool = True) -> None:
    for pid in node.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.kill9()
    if start:
        node.start()


def _freeze(pid: int, chance: random.Random) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        # As often between 0.5 and 4 s as between 4 and 30 s.
        time.sleep(math.exp(chance.uniform(*map(math.log, (SHORTEST_FREEZE_S, LONGEST_FREEZE_S)))))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
