"""A disk of its own for a node: a real file system on a loop device, which can be full or slow."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

SIZE = 512 << 20
CONTROL = Path("/sys/fs/cgroup/blkio")  # version 1: the one that limits writes by a device's number
LIMIT = "blkio.throttle.write_iops_device"
_PATH = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def mount_disk(folder: Path) -> None:
    """Mount a new, empty file system there; it goes with its mount. Skips where that cannot be."""
    folder.mkdir(parents=True)
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(SIZE)
    for command in (
        ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
        ["mount", "-o", "loop", str(image), str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_PATH)
        if done.returncode:
            pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
    image.unlink()  # the loop device keeps it for as long as it is mounted


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Another file takes all that is left of a node's disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size, step = 0, 1 << 26
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
    try:
        yield
    finally:
        filler.unlink()


def can_slow() -> bool:
    """Whether the kernel can make a disk slow here."""
    return os.access(CONTROL, os.W_OK) and os.geteuid() == 0


@contextmanager
def slow_disk(folder: Path, pids: list[int], writes_per_s: int) -> Iterator[None]:
    """The disk takes few writes a second from these processes; each fsync is several.

    Only this node's loop device is slow: on a shared file system its journal would hold up others.
    """
    device = os.stat(folder).st_dev
    for left in CONTROL.glob("context-*"):  # of a test that was killed
        if not psutil.pid_exists(int(left.name.removeprefix("context-"))):
            left.rmdir()
    group = CONTROL / f"context-{os.getpid()}"
    group.mkdir(exist_ok=True)
    try:
        (group / LIMIT).write_text(f"{os.major(device)}:{os.minor(device)} {writes_per_s}")
        for pid in pids:
            _move(pid, group)
        yield
    finally:
        (group / LIMIT).write_text(f"{os.major(device)}:{os.minor(device)} 0")
        for left in group.joinpath("cgroup.procs").read_text().split():
            _move(int(left), CONTROL)
        group.rmdir()


def _move(pid: int, group: Path) -> None:
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except ProcessLookupError:
        return  # it has ended
