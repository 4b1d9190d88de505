"""Ingest of a cluster: the leader's log over three engines and two followers, on this machine.

    python -m bench.cluster [--seconds 5] [--batch 1000] [--group 8] [--followers 2] [--json]
    python -m bench.cluster --nodes [--items 500000] [--connections 8,16,32] [--json]

With `--nodes` three whole nodes run, and bodies of 1,000 items are posted to the leader over HTTP:
everything is in there. Beside it what the engine alone takes in the same run: the same bodies as
they are, as many under way as there are connections, each with its expected last sequence; and the
messages that the log makes of them (compressed, with their columns), one at a time. Both before and
after the nodes, of which it is the mean: a virtual machine whose memory has lain idle is slow until
its host has given it back.

Without, prints items a second that a majority has stored with fsync and the leader has applied, and
how much later the followers have them; beside it the rate at which the engine alone takes the same
messages, each with its expected last sequence, from the same client. `group` bodies share a
message, as those of so many connections do at a node. Parsing, HTTP and the index are not in there,
and the three nodes share one process.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
from nats.aio.client import Client
from nats.js.api import Header

from bench import corpus
from bench.ingest import FILL_BATCHES
from bench.load import request, send
from context.entries import encode_entry, pack
from context.items import Batch
from context.ports import Draft
from nodes.adapters.nats_client import connect
from nodes.engine import Address
from nodes.leadership import Peer, SingleLeadership
from server.agent.replication import Replication, join
from shared_storage.adapters.stream_jetstream import JetStream
from shared_storage.envelope import Envelope, Kind, encode
from shared_storage.errors import StreamDown
from tests.cluster import Cluster, cluster
from tests.engines import SECRET, Engine, settings_of
from tests.node_process import free_port

TERM = 1_000


class Follower:
    """A node of the cluster: its replication, and how many items its index was given."""

    def __init__(self, replication: Replication, *, leads: bool) -> None:
        self.replication, self.items = replication, 0
        self._tasks: list[asyncio.Task[None]] = []
        leadership = SingleLeadership(Peer("bench", "http://bench"), TERM)
        replication.serve(leadership, self._take, self._spawn, lambda change: None)
        if not leads:
            replication.replica.leads = lambda term: False

    def _take(self, batches: Sequence[Batch]) -> None:
        self.items += sum(batch.count for batch in batches)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def stop(self) -> None:
        """Leave the cluster."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.replication.close()


@contextmanager
def _engines(folder: Path) -> Iterator[tuple[list[Engine], list[Address]]]:
    """Three engines that are peers, and where they listen."""
    peers = [Address("127.0.0.1", free_port()) for _ in range(3)]
    engines = [Engine(folder / str(n), own, peers) for n, own in enumerate(peers)]
    for engine in engines:
        engine.start()
    try:
        yield engines, peers
    finally:
        for engine in engines:
            engine.stop()


def drafts(batch: int) -> list[Draft]:
    """Bodies of the mixed corpus, again and again from the beginning."""
    lines = iter(corpus.lines(batch * 200))
    return [
        Draft(batch, b"".join(line + b"\n" for line in itertools.islice(lines, batch)))
        for _ in range(200)
    ]


async def measure(
    folder: Path, seconds: float, batch: int, group: int, followers: int
) -> dict[str, float]:
    """Rates of the log and of the engine alone, in items a second."""
    with _engines(folder) as (engines, _):
        joined = await asyncio.gather(
            *(join(settings_of(e, e.folder), 1) for e in engines[: followers + 1])
        )
        nodes = [Follower(each, leads=n == 0) for n, each in enumerate(joined)]
        leader = joined[0]
        await leader.fence(TERM)
        groups = itertools.cycle(_groups(drafts(batch), group))
        log_rate, after = await _log(leader, nodes, groups, seconds)
        stream = await JetStream.open(
            leader.client, "bench", replicas=3, max_bytes=1 << 34, anew=True
        )
        engine_rate = await asyncio.to_thread(_engine, stream, groups, seconds)
        for node in nodes:
            await node.stop()
    return {
        "items_per_s": log_rate,
        "engine_items_per_s": engine_rate,
        "ratio": log_rate / engine_rate,
        "followers_after_s": after,
    }


def _groups(bodies: Sequence[Draft], group: int) -> list[Sequence[Draft]]:
    return [bodies[at : at + group] for at in range(0, len(bodies), group)]


def measure_nodes(
    folder: Path, count: int, connections: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Rates of three whole nodes and of the engine alone, in items a second."""
    lines = corpus.lines(count)
    bodies = [b"\n".join(lines[at : at + 1000]) for at in range(0, count, 1000)]
    requests = [request(body, "application/x-ndjson") for body in bodies]
    rows: dict[str, dict[str, float]] = {}
    alone = [_engine_alone(folder / "before", bodies, connections, seconds)]
    with cluster(folder / "nodes") as three:
        port = three[three.leader()].port
        # What is compiled or loaded once; and its rings and caches are filled.
        send(port, requests[:FILL_BATCHES], min(connections))
        for number in connections:
            rows[f"over_{number}"] = _posted(three, requests, count, number)
    alone.append(_engine_alone(folder / "after", bodies, connections, seconds))
    for number, row in zip(connections, rows.values(), strict=True):
        row["engine_items_per_s"] = fmean(taken[number] for taken, _ in alone)
        row["ratio"] = row["items_per_s"] / row["engine_items_per_s"]
    return {**rows, "engine_messages_items_per_s": fmean(messages for _, messages in alone)}


def _posted(
    three: Cluster, requests: Sequence[bytes], count: int, connections: int
) -> dict[str, float]:
    """One run; CPU is counted until all nodes have everything."""
    leader, before = three.leader(), _cpu_s(three)
    sent = send(three[leader].port, requests, connections)
    newest = three[leader].client.newest().rpartition(":")[2]
    acknowledged = time.perf_counter()
    for n in range(3):
        three.has(n, int(newest))
    after_s, cpu_s = time.perf_counter() - acknowledged, _cpu_s(three) - before
    return {
        "items_per_s": count / sent.seconds,
        "followers_after_s": after_s,
        "cpu_us_per_item": cpu_s / count * 1e6,
    }


def _cpu_s(three: Cluster) -> float:
    """CPU seconds of all processes of all nodes."""
    times = [psutil.Process(pid).cpu_times() for node in three.nodes for pid in node.pids()]
    return sum(each.user + each.system for each in times)


def _engine_alone(
    folder: Path, bodies: Sequence[bytes], connections: Sequence[int], seconds: float
) -> tuple[dict[int, float], float]:
    """Items a second as bodies, by how many are under way; and as the log's messages."""

    async def taken() -> tuple[dict[int, float], float]:
        client = await connect(peers, SECRET, tls=None)
        alone = {}
        for number in connections:
            await _opened(client)
            alone[number] = await _under_way(client, bodies, number, seconds)
        stream = await _opened(client)
        groups = itertools.cycle(_groups(drafts(1000), 1))
        messages = await asyncio.to_thread(_engine, stream, groups, seconds)
        await client.close()
        return alone, messages

    with _engines(folder) as (_, peers):
        return asyncio.run(taken())


async def _under_way(client: Client, bodies: Sequence[bytes], number: int, seconds: float) -> float:
    """Items a second of bodies of 1,000, `number` of them waiting for the engine's answer."""
    js, each, expected = client.jetstream(timeout=10), itertools.cycle(bodies), itertools.count()
    end = time.perf_counter() + seconds

    async def publish() -> int:
        published = 0
        while time.perf_counter() < end:
            headers = {Header.EXPECTED_LAST_SEQUENCE: str(next(expected))}
            await js.publish("bench", next(each), headers=headers)
            published += 1
        return published

    begun = time.perf_counter()
    published = sum(await asyncio.gather(*[publish() for _ in range(number)]))
    return 1000 * published / (time.perf_counter() - begun)


async def _opened(client: Client) -> JetStream:
    """A stream of three replicas; engines that have just started need a moment for it."""
    while True:
        try:
            return await JetStream.open(client, "bench", replicas=3, max_bytes=1 << 34, anew=True)
        except StreamDown:
            await asyncio.sleep(0.2)


async def _log(
    leader: Replication,
    nodes: Sequence[Follower],
    groups: Iterator[Sequence[Draft]],
    seconds: float,
) -> tuple[float, float]:
    """Items a second through the log, and how long after the last one all followers had it."""

    def work() -> int:
        items, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            some = next(groups)
            leader.log.append(some, term=TERM, now=1.0)
            items += sum(each.count for each in some)
        return items

    begun = time.perf_counter()
    items = await asyncio.to_thread(work)
    acknowledged = time.perf_counter()
    while any(node.items < items for node in nodes):
        await asyncio.sleep(0.005)
    return items / (acknowledged - begun), time.perf_counter() - acknowledged


def _engine(stream: JetStream, groups: Iterator[Sequence[Draft]], seconds: float) -> float:
    """Items a second into a stream of its own, the messages made before."""
    made = [
        (sum(each.count for each in some), _message(some)) for some in itertools.islice(groups, 20)
    ]
    items, sequence, begun = 0, 0, time.perf_counter()
    for count, message in itertools.cycle(made):
        sequence = stream.append(message, expected=sequence)
        items += count
        if time.perf_counter() - begun >= seconds:
            return items / (time.perf_counter() - begun)
    return 0.0


def _message(some: Sequence[Draft]) -> bytes:
    payload = encode_entry(0, 1.0, [pack(each) for each in some])
    return encode(Envelope(Kind.ITEMS, 1, 0, "bench", payload))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=1000, help="items of a body")
    parser.add_argument("--group", type=int, default=8, help="bodies that share a commit")
    parser.add_argument("--followers", type=int, choices=(0, 1, 2), default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--nodes", action="store_true", help="three whole nodes, over HTTP")
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--connections", default="8,16,32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.nodes:
            connections = [int(number) for number in args.connections.split(",")]
            found = measure_nodes(Path(folder), args.items, connections, args.seconds)
        else:
            found = asyncio.run(
                measure(Path(folder), args.seconds, args.batch, args.group, args.followers)
            )
    if args.json:
        print(json.dumps(found))
    elif args.nodes:
        _show_nodes(found)
    else:
        print(f"log      {found['items_per_s']:>12,.0f} items/s, applied on the leader")
        print(f"engine   {found['engine_items_per_s']:>12,.0f} items/s, the same messages alone")
        print(f"ratio    {found['ratio']:>12.2f}")
        print(f"followers had all {found['followers_after_s'] * 1000:.0f} ms later")


def _show_nodes(found: dict[str, Any]) -> None:
    for name, row in found.items():
        if isinstance(row, dict):
            print(
                f"{name:8} {row['items_per_s']:>9,.0f} items/s   {row['cpu_us_per_item']:5.1f} us"
                f" CPU an item, all processes   engine alone {row['engine_items_per_s']:>9,.0f},"
                f" ratio {row['ratio']:.2f}   followers had all"
                f" {row['followers_after_s'] * 1000:.0f} ms later"
            )
    rows = [row for row in found.values() if isinstance(row, dict)]
    best, alone = max(row["items_per_s"] for row in rows), rows[0]["engine_items_per_s"]
    print(f"best     {best:>9,.0f} items/s, {best / alone:.2f} of the engine in the first row")
    messages = found["engine_messages_items_per_s"]
    print(f"engine   {messages:>9,.0f} items/s, as the log's messages, one at a time")


if __name__ == "__main__":
    main()
