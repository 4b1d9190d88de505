"""What networks, disks and clocks do to a cluster: each fault by name, over when it returns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

from tests.cluster import Cluster
from tests.faults.cluster_faults import FAULTS, engines, leader_of
from tests.faults.disks import can_slow, full_disk, slow_disk
from tests.faults.network import HOST, Link, NetworkCluster

SHORTEST_S, LONGEST_S = 1.0, 8.0
DAY_S = 86_400.0
WRITES_PER_S = 25  # of a slow disk: about 0.1 s a commit
Fault = Callable[[NetworkCluster, random.Random], None]


def cut_leader(cluster: NetworkCluster, chance: random.Random) -> None:
    """The leader and the others do not hear each other; producers reach them all."""
    leader = leader_of(cluster, chance)
    _cut(cluster, chance, _both(leader, cluster.others(leader)))


def unplug_leader(cluster: NetworkCluster, chance: random.Random) -> None:
    """Nobody reaches the leader, nor does it reach anybody."""
    leader = leader_of(cluster, chance)
    _cut(cluster, chance, _both(leader, [*cluster.others(leader), HOST]))


def cut_follower(cluster: NetworkCluster, chance: random.Random) -> None:
    """A follower and the others do not hear each other."""
    follower = _follower(cluster, chance)
    _cut(cluster, chance, _both(follower, cluster.others(follower)))


def mute_leader(cluster: NetworkCluster, chance: random.Random) -> None:
    """The leader hears the others, which do not hear it."""
    leader = leader_of(cluster, chance)
    _cut(cluster, chance, [(leader, other) for other in cluster.others(leader)])


def deafen_leader(cluster: NetworkCluster, chance: random.Random) -> None:
    """The others hear the leader, which does not hear them."""
    leader = leader_of(cluster, chance)
    _cut(cluster, chance, [(other, leader) for other in cluster.others(leader)])


def part_leader_from_one(cluster: NetworkCluster, chance: random.Random) -> None:
    """The leader and one follower do not hear each other; the third node hears both."""
    leader = leader_of(cluster, chance)
    _cut(cluster, chance, _both(leader, [chance.choice(cluster.others(leader))]))


def cut_all(cluster: NetworkCluster, chance: random.Random) -> None:
    """No node hears another one: there is no majority."""
    nodes = range(len(cluster.nodes))
    _cut(cluster, chance, [(a, b) for a in nodes for b in nodes if a != b])


def flap(cluster: NetworkCluster, chance: random.Random) -> None:
    """The leader is cut off and back again, many times, sometimes in one direction only."""
    leader = leader_of(cluster, chance)
    others = cluster.others(leader)
    sides = [
        _both(leader, others),
        [(leader, other) for other in others],
        [(o, leader) for o in others],
    ]
    for _ in range(chance.randint(5, 15)):
        with_s, without_s = chance.uniform(0.05, 1.0), chance.uniform(0.05, 1.0)
        cluster.network.cut(chance.choice(sides))
        time.sleep(without_s)
        cluster.network.heal()
        time.sleep(with_s)


def slow_network(cluster: NetworkCluster, chance: random.Random) -> None:
    """Between all nodes packets are late, overtake each other, and some are lost."""
    nodes = range(len(cluster.nodes))
    links = [(a, b) for a in nodes for b in nodes if a != b]
    delay_s, loss = chance.uniform(0.01, 0.1), chance.uniform(0.0, 0.05)
    cluster.network.slow(links, loss=loss, delay_s=delay_s, jitter_s=delay_s / 2)
    time.sleep(chance.uniform(SHORTEST_S, LONGEST_S))
    cluster.network.heal()


def slow_leader_disk(cluster: NetworkCluster, chance: random.Random) -> None:
    """The leader's disk takes few writes a second, its engine's too."""
    _slow_disk(cluster, leader_of(cluster, chance), chance)


def slow_follower_disk(cluster: NetworkCluster, chance: random.Random) -> None:
    """A follower's disk takes few writes a second."""
    _slow_disk(cluster, _follower(cluster, chance), chance)


def fill_leader_disk(cluster: NetworkCluster, chance: random.Random) -> None:
    """The leader's disk is full, its engine's too."""
    _fill_disk(cluster, leader_of(cluster, chance), chance)


def fill_follower_disk(cluster: NetworkCluster, chance: random.Random) -> None:
    """A follower's disk is full."""
    _fill_disk(cluster, _follower(cluster, chance), chance)


def jump_clock(cluster: NetworkCluster, chance: random.Random) -> None:
    """Wall clocks jump by up to a day, each its own way, and later back."""
    for _ in range(3):
        for n in range(len(cluster.nodes)):
            cluster.set_clock(n, chance.choice([0.0, chance.uniform(-DAY_S, DAY_S)]))
        time.sleep(chance.uniform(0.2, 1.5))
    for n in range(len(cluster.nodes)):
        cluster.set_clock(n, 0.0)


NETWORK_FAULTS: dict[str, Fault] = {
    each.__name__: each
    for each in (
        cut_leader,
        unplug_leader,
        cut_follower,
        mute_leader,
        deafen_leader,
        part_leader_from_one,
        cut_all,
        flap,
        slow_network,
        *((slow_leader_disk, slow_follower_disk) if can_slow() else ()),
        fill_leader_disk,
        fill_follower_disk,
        jump_clock,
    )
}
ALL_FAULTS: dict[str, Fault] = {**FAULTS, **NETWORK_FAULTS}


def _both(node: int, others: Iterable[int]) -> list[Link]:
    return [link for other in others for link in ((node, other), (other, node))]


def _follower(cluster: Cluster, chance: random.Random) -> int:
    leader = leader_of(cluster, chance)
    return chance.choice([n for n in range(len(cluster.nodes)) if n != leader])


def _cut(cluster: NetworkCluster, chance: random.Random, links: Iterable[Link]) -> None:
    cluster.network.cut(links)
    time.sleep(chance.uniform(SHORTEST_S, LONGEST_S))
    cluster.network.heal()


def _slow_disk(cluster: NetworkCluster, n: int, chance: random.Random) -> None:
    node = cluster[n]
    pids = [*node.pids(), *(engine.pid for engine in engines(node))]
    with slow_disk(node.data_dir, pids, WRITES_PER_S):
        time.sleep(chance.uniform(SHORTEST_S, LONGEST_S))


def _fill_disk(cluster: NetworkCluster, n: int, chance: random.Random) -> None:
    with full_disk(cluster[n].data_dir):
        time.sleep(chance.uniform(SHORTEST_S, LONGEST_S))
