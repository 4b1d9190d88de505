"""Subscribers that read when they like: a little, then nothing, then all that is there.

Their receive buffers are small, so that the node's sockets refuse what it would send and it has to
let go of them, catch up from the log, and take them in again, many times a second.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from context.events import EventDecoder
from tests.faults.checker import History, Missed, Seen, violations
from tests.faults.node import HurtNode
from tests.faults.subscribers import content, read_log
from tests.node_process import wait_for

RECEIVE_BUFFER = 4096  # the kernel makes it somewhat more
Given = list[Seen | Missed]
_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


class Reader(threading.Thread):
    """One raw connection, read at a seeded random pace; `received` is all that came."""

    def __init__(self, node: HurtNode, seed: int) -> None:
        super().__init__(daemon=True)
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.sock.connect(("127.0.0.1", node.port))
        self.received = bytearray()
        self.paused = threading.Event()  # set: read nothing
        self._chance = random.Random(seed)

    def run(self) -> None:
        """Read until the end of the connection."""
        with suppress(OSError):
            while data := self.sock.recv(self._chance.choice((100, 3000, 1 << 16))):
                self.received += data
                while self.paused.is_set():
                    time.sleep(0.01)
                if self._chance.random() < 0.05:
                    time.sleep(self._chance.random() * 0.02)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self.sock.close()

    def given(self) -> Given:
        """What the node has sent, as far as it is complete."""
        raise NotImplementedError


class SlowStream(Reader):
    """Server-Sent Events."""

    def __init__(self, node: HurtNode, seed: int, **options: str) -> None:
        super().__init__(node, seed)
        query = "&".join(f"{name}={value}" for name, value in options.items())
        self.sock.sendall(f"GET /api/context/stream?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        self.start()

    def given(self) -> Given:
        """See above."""
        _, _, body = bytes(self.received).partition(b"\r\n\r\n")
        found: Given = []
        for event in EventDecoder().feed(body):
            if event.kind == "gap":
                found.append(_missed(event.data))
            else:
                found.append(Seen(event.data["offset"], content(event.data)))
        return found

    def folded(self) -> int:
        """How many items it was told were left out."""
        return sum(
            json.loads(part.split(b"\n", 1)[0])["folded"]
            for part in bytes(self.received).split(b"event: folded\ndata: ")[1:]
        )


class SlowSocket(Reader):
    """Socket.IO on a WebSocket; frames that are not whole or not in place fail to parse."""

    def __init__(self, node: HurtNode, seed: int, **options: str) -> None:
        super().__init__(node, seed)
        self.sock.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + _KEY
            + b"\r\n"
        )
        self.start()
        wait_for(lambda: b"\r\n\r\n" in self.received, "the handshake")
        self._send("40")
        wait_for(lambda: b'40{"sid"' in self.received, "the namespace")
        self._send('420["subscribe",' + json.dumps(options) + "]")
        wait_for(lambda: b'430[{"ok":true' in self.received, "the subscription")

    def ask(self) -> None:
        """Make the node answer something between the frames of the subscription."""
        with suppress(OSError):
            self._send('421["unsubscribe",{"subscription":"none"}]')

    def given(self) -> Given:
        """See above."""
        found: Given = []
        for message in self.messages():
            if message.startswith('42["'):
                name, event = json.loads(message[2:])
                if name == "context":
                    found += [Seen(item["offset"], content(item)) for item in event["items"]]
                elif name == "gap":
                    found.append(_missed(event))
        return found

    def folded(self) -> int:
        """How many items it was told were left out."""
        events = [json.loads(each[2:]) for each in self.messages() if each.startswith('42["cont')]
        return sum(event.get("folded", 0) for _, event in events)

    def messages(self) -> list[str]:
        """Every whole message so far."""
        _, _, data = bytes(self.received).partition(b"\r\n\r\n")
        at, found = 0, []
        while len(data) - at >= 2:
            assert data[at] in (0x81, 0x88), f"no frame begins at byte {at}: {data[at : at + 40]!r}"
            size, head = data[at + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if at + head + size > len(data):
                break
            if data[at] == 0x81:
                found.append(data[at + head : at + head + size].decode())
            at += head + size
        return found

    def _send(self, text: str) -> None:
        payload = text.encode()
        assert len(payload) < 126
        self.sock.sendall(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)


def _missed(gap: Any) -> Missed:
    first, last = (int(gap[name].rpartition(":")[2]) for name in ("missed_from", "missed_to"))
    return Missed(first, last)


def flow(
    node: HurtNode, batches: int, sent: dict[str, Any], *, size: int, each: Callable[[int], None]
) -> None:
    """Store batches of distinct items of some size, noted in `sent`, calling `each` after each."""
    number = 0
    for batch in range(batches):
        items = []
        for _ in range(batch % 7 + 1):
            data = {"n": number, "symbol": f"S{number % 5}", "pad": "x" * size}
            items.append({"type": "flow", "source": "test", "timestamp": number, "data": data})
            number += 1
        node.client.ingest(items)
        sent[str(batch)] = [content(item) for item in items]
        each(batch)


def run(node: HurtNode, *, rounds: int = 10, batches: int = 30, size: int = 6000) -> list[str]:
    """Broken promises of a node with six readers that pause and catch up, again and again.

    In each round every one of them reads nothing for a while, and goes on while items still come.
    """
    epoch = node.client.newest().split(":")[0]
    after = f"{epoch}:-1"
    streams: Sequence[Reader] = [SlowStream(node, seed, after=after) for seed in range(3)]
    sockets = [SlowSocket(node, seed, after=after) for seed in range(3, 6)]
    readers: list[Reader] = [*streams, *sockets]
    chance = random.Random(7)
    pauses = dict.fromkeys(readers, (0, 0))  # from which batch of the round to which

    def each(batch: int) -> None:
        at = batch % batches
        for reader in readers:
            if at == 0:
                begin = chance.randrange(batches // 3)
                pauses[reader] = (begin, begin + chance.randrange(batches // 3, 2 * batches // 3))
            begin, end = pauses[reader]
            (reader.paused.set if begin <= at < end else reader.paused.clear)()
        if batch % 5 == 0:
            for one in sockets:
                one.ask()
        if at == batches - 1:
            newest = int(node.client.newest().rpartition(":")[2])
            wait_for(lambda: all(_has(one, newest) for one in readers), "the newest item", 10)

    sent: dict[str, Any] = {}
    with suppress(AssertionError):  # what did not come is the checker's to tell
        flow(node, rounds * batches, sent, size=size, each=each)
    log = read_log(node.client)
    for reader in readers:
        reader.close()
    history = History(sent, [], log)
    for number, reader in enumerate(readers):
        history.subscribers[f"{type(reader).__name__} {number}"] = reader.given()
    return violations(history)


def _has(reader: Reader, offset: int) -> bool:
    return b'"offset":%d,' % offset in reader.received[-20_000:]


def counted(node: HurtNode, name: str) -> float:
    """A metric's value; 0 where there is none."""
    for line in node.client.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0
