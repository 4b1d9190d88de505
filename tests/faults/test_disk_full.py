"""A full disk: refused plainly, nothing half stored, searches go on, and it heals by itself."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from context.adapters.disk_room import free_bytes
from tests.faults.checker import History, violations
from tests.faults.node import HurtNode
from tests.faults.producers import Producers
from tests.faults.storm import contents, in_batches, send_all
from tests.faults.subscribers import read_log
from tests.faults.test_faults import lines
from tests.node_process import wait_for

INGEST = "/api/context/ingest"
Fill = Callable[[HurtNode], contextlib.AbstractContextManager[None]]
SMALL_DISK = "size=48m"
NO_RESERVE = {"CONTEXT_DISK_RESERVE_MB": "0"}


@contextlib.contextmanager
def no_larger_files(node: HurtNode) -> Iterator[None]:
    """The agent's files may not grow: as root or not, on any machine."""
    agent = psutil.Process(node.child("server.agent"))
    log = [node.data_dir / name for name in ("log.db", "log.db-wal")]
    largest = max(path.stat().st_size for path in log if path.exists())
    agent.rlimit(resource.RLIMIT_FSIZE, (largest + 50_000, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        agent.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def no_space_left(node: HurtNode) -> Iterator[None]:
    """Another file takes the rest of a small disk."""
    filler = node.data_dir.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", SMALL_DISK, "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield disk / "data"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_files_that_cannot_grow(tmp_path: Path) -> None:
    with HurtNode(tmp_path / "data", env=NO_RESERVE) as node:
        through_a_full_disk(node, no_larger_files)


def test_no_space_left_on_the_device(small_disk: Path) -> None:
    with HurtNode(small_disk, env=NO_RESERVE) as node:
        through_a_full_disk(node, no_space_left)


def test_killed_while_the_disk_is_full(small_disk: Path) -> None:
    """What was acknowledged is there at the next start, once there is space for one."""
    before, during = in_batches(lines(2000), 100), in_batches(lines(60_000, start=2000), 1000)
    during = {f"during-{key}": body for key, body in during.items()}
    with HurtNode(small_disk, env=NO_RESERVE) as node:
        acks = send_all(node, before)
        with no_space_left(node):
            producers = Producers(node.port, during, threads=2, seed=4)
            producers.start()
            wait_for(lambda: producers.told["507"] >= 5, "507")
            node.kill_and_leave("everything")
        node.start()
        try:
            producers.wait(len(during))
        finally:
            producers.stop()
        found = violations(
            History(contents(before | during), acks + producers.acks, read_log(node.client))
        )
        assert not found, "\n".join(found)


def test_the_reserve_stays_free(small_disk: Path) -> None:
    """Nothing is taken in while less than the reserve is free; then the node goes on by itself."""
    reserve_mb = 16
    with HurtNode(small_disk, env={"CONTEXT_DISK_RESERVE_MB": str(reserve_mb)}) as node:
        node.client.ingest({"type": "note", "data": {"n": 1}})
        filler = small_disk.parent / "filler"
        free = free_bytes(small_disk.parent)
        filler.write_bytes(bytes(free - (reserve_mb - 1 << 20)))
        body = {"type": "note", "data": {"n": 2}}
        wait_for(lambda: node.client.post(INGEST, json=body).status_code == 507, "507")
        refused = node.client.post(INGEST, json=body).json()
        assert refused["code"] == "storage_full"
        assert refused["retryable"] is True
        assert "disk_reserve_mb" in refused["detail"]
        assert node.client.get("/api/context/items/0").status_code == 200
        stop = node.client.post("/api/control/emergency-stop", json={"reason": "disk"})
        assert stop.status_code == 200, stop.text  # the reserve is for this
        filler.unlink()
        wait_for(lambda: node.client.post(INGEST, json=body).status_code == 201, "201")


def through_a_full_disk(node: HurtNode, fill: Fill) -> None:
    """Send until the disk is full and on; look at the node meanwhile; then give the space back."""
    before, during = in_batches(lines(2000), 100), in_batches(lines(60_000, start=2000), 1000)
    during = {f"during-{key}": body for key, body in during.items()}
    acks = send_all(node, before)
    with fill(node):
        producers = Producers(node.port, during, threads=3, seed=4)
        producers.start()
        wait_for(lambda: producers.told["507"] >= 10, "507")
        refused = node.client.post(
            "/api/context/ingest", json=[{"type": "note", "data": {"pad": "y" * 90_000}}] * 20
        )
        assert refused.status_code == 507, refused.text
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["code"] == "storage_full"
        assert refused.json()["retryable"] is True
        hits = node.client.post("/api/context/search", json={"query": '"number":1999'}).json()
        assert [item["offset"] for item in hits["items"]] == [1999]
        assert node.client.get("/readyz").status_code == 200
        stored = History(contents(before | during), acks + producers.acks, read_log(node.client))
        assert len(stored.log) < 62_000
        assert not (found := violations(stored)), "\n".join(found)
    try:
        producers.wait(len(during))
    finally:
        producers.stop()
    assert set(producers.told) <= {"201", "507"}
    kept = History(contents(before | during), acks + producers.acks, read_log(node.client))
    assert not (found := violations(kept)), "\n".join(found)
