"""Nodes in network namespaces and on file systems of their own, whose wires and disks obey a test.

Everything is reachable from this machine only: the wires pass nothing on from or to elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cluster import Cluster
from tests.faults.disks import mount_disk
from tests.node_process import ROOT

HOST = -1  # the machine itself, where producers and subscribers run
CLOCK = Path(__file__).with_name("clock")
PORT = 5000
TOOLS = ("ip", "nsenter", "setpriv", "mkfs.ext4")
# A test that is killed takes its nodes along.
_ENTER = ("setpriv", "--pdeathsig", "KILL", "nsenter")

Link = tuple[int, int]  # numbers of nodes, or HOST: who sends to whom


def need_network() -> None:
    """Skip the test where there can be no network namespaces."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_path()) is None]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)} (apt-get install iproute2)")
    if os.geteuid() or not os.path.exists("/dev/net/tun"):
        pytest.skip("network namespaces need root and /dev/net/tun")


class Network:
    """A namespace per node, each with a wire to all others and to this machine."""

    def __init__(self, size: int, mounted: Iterable[Path] = ()) -> None:
        net = f"198.{18 + (os.getpid() >> 8) % 2}.{os.getpid() % 256}"  # RFC 2544: for such tests
        self.hosts = [f"{net}.{n + 1}" for n in range(size)]
        self._wire = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.wire", f"{net}.254", *self.hosts, "--"]
            + [str(folder) for folder in mounted],
            cwd=ROOT,
            env={**os.environ, "PATH": _path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._spaces: list[int] = self._told()
        self._rules: dict[Link, tuple[float, float, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.communicate()  # the end of its input ends it, and everything with it

    def enter(self, n: int) -> list[str]:
        """What to put before a command that is to run in a node's namespace."""
        return [*_ENTER, f"--net=/proc/{self._wire.pid}/fd/{self._spaces[n]}", "--"]

    def cut(self, links: Iterable[Link]) -> None:
        """Nothing passes in these directions."""
        self._set(dict.fromkeys(links, (1.0, 0.0, 0.0)))

    def slow(self, links: Iterable[Link], *, loss: float, delay_s: float, jitter_s: float) -> None:
        """Packets are late by `delay_s` give or take `jitter_s`, out of order, or lost."""
        self._set(dict.fromkeys(links, (loss, delay_s, jitter_s)))

    def heal(self) -> None:
        """Everything passes at once."""
        self._rules = {}
        self._set({})

    def _set(self, rules: dict[Link, tuple[float, float, float]]) -> None:
        self._rules |= rules
        told = [[a + 1, b + 1, *how] for (a, b), how in self._rules.items()]
        assert self._wire.stdin
        self._wire.stdin.write(json.dumps(told) + "\n")
        self._wire.stdin.flush()
        assert self._told() is True

    def _told(self) -> Any:
        assert self._wire.stdout
        line = self._wire.stdout.readline()
        assert line, f"the wires ended with {self._wire.wait()}"
        return json.loads(line)


class NetworkCluster(Cluster):
    """Nodes on a network and disks of their own, with clocks that can be set."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.network, self._clocks = network, folder / "clocks"
        super().__init__(
            folder,
            len(network.hosts),
            env={
                "CONTEXT_DISK_RESERVE_MB": "32",
                "PYTHONPATH": str(CLOCK),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            hosts=network.hosts,
            port=PORT,
            enter=network.enter,
        )
        self._clocks.mkdir(exist_ok=True)
        for n, node in enumerate(self.nodes):
            node.env["CLOCK_FILE"] = str(self._clocks / str(n))

    def set_clock(self, n: int, off_s: float) -> None:
        """From now on a node's wall clock is off by so many seconds."""
        (self._clocks / str(n)).write_text(str(off_s))

    def others(self, n: int) -> list[int]:
        """The numbers of the other nodes."""
        return [other for other in range(len(self.nodes)) if other != n]


@contextmanager
def network_cluster(folder: Path, size: int = 3) -> Iterator[NetworkCluster]:
    """A started cluster on wires and small disks; nothing of it is left after the block."""
    need_network()
    disks = [folder / f"n{n}" for n in range(size)]
    with Network(size, mounted=disks) as network:
        for disk in disks:
            mount_disk(disk)
        made = NetworkCluster(folder, network)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
