"""The wires between network namespaces, as a process of its own: `python -m tests.faults.wire`.

Each node's namespace and the machine's own have a TUN device, and every packet between two of them
passes through here, where it may be dropped or held up by who sends it to whom. That needs nothing
of the kernel but TUN (netem is often not built in). Namespaces have no names and the devices do not
outlive this process, so nothing is left behind however a test ends: its end closes standard input.

Arguments: the addresses, the machine's own first, then folders to unmount at the end. It tells
on standard output, as JSON lines: the number of the file descriptor of each node's namespace; then
`true` for every list of rules `[from, to, loss, delay_s, jitter_s]` that it reads and obeys.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import ipaddress
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

NEW_NET = 0x40000000  # CLONE_NEWNET, <linux/sched.h>
SET_INTERFACE, TUN, NO_INFO = 0x400454CA, 0x0001, 0x1000  # <linux/if_tun.h>
MTU = 9000
PREFIX_BITS = 24
UNMOUNT_S = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _open_tun(address: str) -> int:
    """A TUN device with this address in the present namespace; its file descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    told = fcntl.ioctl(tun, SET_INTERFACE, struct.pack("16sH22x", b"wire%d", TUN | NO_INFO))
    name = told[:16].rstrip(b"\0").decode()
    for command in (
        "link set lo up",
        f"addr add {address}/{PREFIX_BITS} dev {name}",
        f"link set {name} mtu {MTU} up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return tun


def _open_all(addresses: Sequence[str]) -> tuple[list[int], list[int]]:
    """TUN devices, this namespace's first; and the namespaces of the others."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    tuns, spaces = [_open_tun(addresses[0])], []
    for address in addresses[1:]:
        _checked(_libc.unshare(NEW_NET))
        spaces.append(os.open("/proc/self/ns/net", os.O_RDONLY))
        tuns.append(_open_tun(address))
        _checked(_libc.setns(home, NEW_NET))
    return tuns, spaces


class Wires:
    """Passes packets on; `rules` holds loss (0..1), delay and jitter in seconds by direction."""

    def __init__(self, tuns: Sequence[int], addresses: Sequence[str]) -> None:
        self.rules: dict[tuple[int, int], tuple[float, float, float]] = {}
        self._tuns = tuns
        self._places = {ipaddress.ip_address(a).packed: n for n, a in enumerate(addresses)}
        self._held: list[tuple[float, int, int, bytes]] = []  # due, number, to, packet
        self._number, self._chance = 0, random.Random(0)

    def wait_s(self) -> float | None:
        """Seconds until a held packet is due."""
        return max(0.0, self._held[0][0] - time.monotonic()) if self._held else None

    def read(self, tun: int) -> None:
        """Pass on all that waits in one device."""
        with suppress(BlockingIOError):
            while True:
                packet = os.read(tun, 65536)
                if packet[0] >> 4 == 4:
                    self._pass(packet)

    def _pass(self, packet: bytes) -> None:
        sender, to = self._places.get(packet[12:16]), self._places.get(packet[16:20])
        if sender is None or to is None:  # nothing from elsewhere, and nothing to elsewhere
            return
        loss, delay_s, jitter_s = self.rules.get((sender, to), (0.0, 0.0, 0.0))
        if loss and self._chance.random() < loss:
            return
        if not delay_s:
            self._write(to, packet)
            return
        self._number += 1
        due = time.monotonic() + max(0.0, delay_s + self._chance.uniform(-jitter_s, jitter_s))
        heapq.heappush(self._held, (due, self._number, to, packet))

    def release(self) -> None:
        """Pass on what was held long enough."""
        now = time.monotonic()
        while self._held and self._held[0][0] <= now:
            _, _, to, packet = heapq.heappop(self._held)
            self._write(to, packet)

    def _write(self, to: int, packet: bytes) -> None:
        with suppress(OSError):  # a full queue drops, as a switch does
            os.write(self._tuns[to], packet)


def _obey(wires: Wires, line: str) -> None:
    wires.rules = {(sender, to): (a, b, c) for sender, to, a, b, c in json.loads(line)}
    print("true", flush=True)


def _unmount(folders: Sequence[str]) -> None:
    """Take file systems away, those still in use at the end of their use."""
    deadline = time.monotonic() + UNMOUNT_S
    for folder in folders:
        while subprocess.run(["umount", folder], capture_output=True, check=False).returncode:
            if not os.path.ismount(folder):
                break
            if time.monotonic() > deadline:
                subprocess.run(["umount", "--lazy", folder], check=False)
                break
            time.sleep(0.05)


def main(addresses: Sequence[str], folders: Sequence[str]) -> None:
    """Pass packets on until standard input ends."""
    os.nice(-10)  # a network does not wait for a busy processor
    try:
        tuns, spaces = _open_all(addresses)
        print(json.dumps(spaces), flush=True)
        wires, poll = Wires(tuns, addresses), select.poll()
        for watched in (0, *tuns):
            poll.register(watched, select.POLLIN)
        commands = b""
        while True:
            wait_s = wires.wait_s()
            for ready, _ in poll.poll(None if wait_s is None else 1000 * wait_s):
                if ready:
                    wires.read(ready)
                    continue
                if not (more := os.read(0, 65536)):
                    return
                *lines, commands = (commands + more).split(b"\n")
                for line in lines:
                    _obey(wires, line.decode())
            wires.release()
    finally:
        _unmount(folders)


if __name__ == "__main__":
    at = sys.argv.index("--")
    main(sys.argv[1:at], sys.argv[at + 1 :])
