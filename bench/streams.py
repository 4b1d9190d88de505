"""Live delivery: items delivered per second to many subscribers, beside bare socket writes.

    python -m bench.streams [--subscribers 100] [--items 100000] [--json]

Every subscriber gets every item; a delivery is one item received by one subscriber, and each
subscriber's items are checked to be complete. The reference is a loop in this process that writes
ready-made frames of one item each to as many sockets and does nothing else.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import corpus
from bench.node import Node, running

NEEDLE = b'"offset":'  # once in every item delivered
BATCH = 100
STALLED_S = 30.0
Connect = Callable[[Node], socket.socket]


@dataclass
class Subscriber:
    """One connection that counts the items it receives."""

    sock: socket.socket
    items: int = 0
    tail: bytes = b""

    def take(self, data: bytes) -> int:
        """Count the items in newly received bytes, also across their borders."""
        joined = self.tail + data
        found = joined.count(NEEDLE)
        self.tail = joined[-len(NEEDLE) + 1 :]
        self.items += found
        return found


def until(sock: socket.socket, end: bytes) -> bytes:
    """Receive up to and including `end`."""
    got = b""
    while end not in got:
        got += sock.recv(1)
    return got


def connect_sse(node: Node) -> socket.socket:
    """A stream of everything from now on."""
    sock = socket.create_connection(("127.0.0.1", node.port))
    sock.sendall(b"GET /api/context/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    until(sock, b"retry: 1000\n\n")
    return sock


def connect_socketio(node: Node) -> socket.socket:
    """A Socket.IO subscription to everything over a WebSocket."""
    sock = socket.create_connection(("127.0.0.1", node.port))
    sock.sendall(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    until(sock, b"\r\n\r\n")
    sock.sendall(frame(b"40"))
    until(sock, b'"term":')
    sock.sendall(frame(b'421["subscribe",{}]'))
    until(sock, b'"as_of":')
    return sock


def frame(text: bytes) -> bytes:
    """A short client-to-server text frame (RFC 6455) with the mask zero."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def publish(node: Node, lines: list[bytes]) -> None:
    """Post all lines in batches over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    for i in range(0, len(lines), BATCH):
        body = b"\n".join(lines[i : i + BATCH])
        connection.request(
            "POST", "/api/context/ingest", body, {"Content-Type": "application/x-ndjson"}
        )
        answer = connection.getresponse()
        answer.read()
        if answer.status != 201:
            raise SystemExit(f"the node answered {answer.status}")


def receive(subscribers: list[Subscriber], wanted: int) -> None:
    """Read from all until they have `wanted` items in total, or nothing comes any more."""
    with selectors.DefaultSelector() as selector:
        for subscriber in subscribers:
            subscriber.sock.setblocking(False)
            selector.register(subscriber.sock, selectors.EVENT_READ, subscriber)
        got, moved = 0, time.perf_counter()
        while got < wanted:
            for key, _ in selector.select(timeout=1):
                fresh = key.data.take(key.data.sock.recv(1 << 18))
                got += fresh
                moved = time.perf_counter() if fresh else moved
            if time.perf_counter() - moved > STALLED_S:
                raise SystemExit(f"stalled: {got} of {wanted} deliveries arrived")


def measure(connect: Connect, count: int, lines: list[bytes]) -> dict[str, Any]:
    """Deliveries of all lines to `count` subscribers of a fresh node."""
    with running() as node:
        subscribers = [Subscriber(connect(node)) for _ in range(count)]
        before, started = node.cpu_s(), time.perf_counter()
        publisher = threading.Thread(target=publish, args=(node, lines))
        publisher.start()
        receive(subscribers, count * len(lines))
        took, after = time.perf_counter() - started, node.cpu_s()
        publisher.join()
        for subscriber in subscribers:
            subscriber.sock.close()
    deliveries = count * len(lines)
    return {
        "subscribers": count,
        "deliveries": deliveries,
        "incomplete": sum(each.items != len(lines) for each in subscribers),
        "deliveries_per_s": round(deliveries / took),
        "cpu_us_per_delivery": round((after["all"] - before["all"]) / deliveries * 1e6, 3),
    }


def bare_limit(count: int, size: int, rounds: int) -> float:
    """Deliveries per second of a loop that only writes one ready-made frame to each socket."""
    pairs = [socket.socketpair() for _ in range(count)]
    stop = threading.Event()

    def drain() -> None:
        with selectors.DefaultSelector() as selector:
            for _, reader in pairs:
                reader.setblocking(False)
                selector.register(reader, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(timeout=0.1):
                    os.read(key.fd, 1 << 18)

    drainer = threading.Thread(target=drain)
    drainer.start()
    payload, started = b"x" * size, time.perf_counter()
    for _ in range(rounds):
        for writer, _ in pairs:
            writer.sendall(payload)
    took = time.perf_counter() - started
    stop.set()
    drainer.join()
    for pair in pairs:
        for sock in pair:
            sock.close()
    return count * rounds / took


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    lines = corpus.lines(args.items)
    figures: dict[str, Any] = {
        "sse": measure(connect_sse, args.subscribers, lines),
        "socketio": measure(connect_socketio, args.subscribers, lines),
    }
    limit = bare_limit(args.subscribers, 300, max(1, 200_000 // args.subscribers))
    figures["one_frame_an_item_limit_per_s"] = round(limit)
    for name in ("sse", "socketio"):
        figures[name]["ratio_to_limit"] = round(figures[name]["deliveries_per_s"] / limit, 2)
    if args.json:
        print(json.dumps(figures))
        return
    for name in ("sse", "socketio"):
        row = figures[name]
        print(
            f"{name:9} {row['subscribers']} subscribers: {row['deliveries_per_s']:>10,}"
            f" deliveries/s, {row['cpu_us_per_delivery']} us CPU each,"
            f" {row['incomplete']} subscribers incomplete,"
            f" {row['ratio_to_limit']} times bare writes of one item each"
        )
    print(f"bare      writes of one frame an item: {round(limit):>10,} deliveries/s")


if __name__ == "__main__":
    main()
