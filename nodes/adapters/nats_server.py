"""The engine's process: find nats-server, write its configuration, run it under a thin parent.

The parent speaks with the supervisor (`nodes.adapters.parent`), which nats-server cannot. On Linux
the kernel kills the engine when the parent dies; elsewhere the supervisor kills the group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from nodes.adapters.parent import announce_ready
from nodes.engine import (
    EngineSettings,
    config_text,
    gives_up,
    is_new_enough,
    version_of,
)
from nodes.errors import EngineMissing

NAME = "nats-server"
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_POLL_S = 0.05
_LOOK_S = 0.5
_ROOM_BYTES = 16 << 20  # on the disk, before an engine that gave up tries again
_VERSION_S = 10.0


def is_this_machine(host: str) -> bool:
    """Whether a host name or address is one of this machine's."""
    own = {address.address for each in psutil.net_if_addrs().values() for address in each}
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(address in own or address.startswith("127.") for address in found)


def find_engine() -> str:
    """Path of a nats-server that is new enough: on PATH, else from the package.

    Raises EngineMissing with what was found instead.
    """
    packaged = Path(sysconfig.get_path("scripts")) / NAME
    seen = []
    for path in filter(None, (shutil.which(NAME), str(packaged) if packaged.exists() else None)):
        told = _ask_version(path)
        if is_new_enough(version_of(told)):
            return path
        seen.append(f"{path} is {told or 'not runnable'}")
    found = "; ".join(seen) or "none found"
    raise EngineMissing(f"peers: nats-server 2.11 or newer is needed ({found}); run script/setup")


def run_engine(settings: EngineSettings, folder: Path) -> int:
    """Run the engine until SIGTERM; returns its exit status.

    One that has given up storing is ended (status 1, so that it is started anew) when the disk has
    room: until then it passes messages between the nodes at least.

    `folder` is made where missing; it keeps the configuration (readable by this user alone) and the
    streams. Raises EngineMissing, OSError.
    """
    path = find_engine()
    config = _write_config(folder, config_text(settings))
    # Its parent: a death signal set between fork and exec stays over the exec.
    process = subprocess.Popen(
        [path, "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - no other Python thread runs here
    )
    gave_up = threading.Event()
    threading.Thread(target=_listen, args=(process, gave_up), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    while process.poll() is None and not _greets(host, settings.own.client_port):
        time.sleep(_POLL_S)
    if process.poll() is None:
        announce_ready(f"port {settings.own.client_port}")
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
        if gave_up.is_set() and shutil.disk_usage(folder).free >= _ROOM_BYTES:
            process.terminate()
            process.wait()
            return 1
    code = process.returncode
    return 0 if code == -signal.SIGTERM else abs(code)


def _listen(process: subprocess.Popen[bytes], gave_up: threading.Event) -> None:
    """Pass on what the engine tells, and note when it gives up."""
    assert process.stderr
    for line in process.stderr:
        if gives_up(line):
            gave_up.set()
        with contextlib.suppress(OSError):  # a full disk takes no log either
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def _ask_version(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _write_config(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "nats.conf"
    draft = path.with_suffix(".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
    return path


def _die_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


def _greets(host: str, port: int) -> bool:
    """Whether an engine answers there; it speaks first."""
    try:
        with socket.create_connection((host, port), timeout=1) as sock:
            return sock.recv(5) == b"INFO "
    except OSError:
        return False
