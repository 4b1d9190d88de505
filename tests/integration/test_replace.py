"""A machine is gone for good, with its disk: another one takes its place in the cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster import Cluster, cluster
from tests.integration.test_rejoin import BODY, fill
from tests.node_process import NodeProcess, free_port, wait_for


def heir(three: Cluster, folder: Path, number: int, *, of: int) -> NodeProcess:
    """A node with an empty folder, an id and an address of its own, in place of another."""
    port = free_port()
    lost = three[of]
    peers = lost.args[3].replace(f":{lost.port}", f":{port}")
    args = ("--id", f"n{number}", "--peers", peers, "--replace", f"n{of}")
    return NodeProcess(folder / f"n{number}", port, *args, env=lost.env)


def test_another_machine_takes_the_place_of_a_lost_one(tmp_path: Path) -> None:
    with cluster(tmp_path) as three:
        fill(three[three.leader()], 0, 3 * BODY)
        hasty = heir(three, tmp_path, 9, of=1)
        three.nodes.append(hasty)
        hasty.launch()
        wait_for(lambda: not hasty.pids(), "a node to end whose place is still taken", 60)
        assert "replace: n1 still runs" in hasty.log
        hasty.kill9()
        three.nodes.remove(hasty)

        three[2].kill9()
        shutil.rmtree(three[2].data_dir)
        term = three.told(0)["term"]
        new = heir(three, tmp_path, 3, of=2)
        three.nodes.append(new)
        new.start()
        three.has(3, 3 * BODY - 1)
        first = three.leader(among=[0, 1, 3])
        fill(three[first], 3 * BODY, BODY)
        assert three.told(3)["term"] >= term
        wait_for(lambda: "every stream has its replicas again" in new.log, "three replicas", 60)

        def ids() -> list[str]:
            return [each["id"] for each in three.told(0)["nodes"]]

        # One that has fallen silent goes from the list once it counts as dead.
        wait_for(lambda: ids() == ["n0", "n1", "n3"], "n3 in the place of n2")

        # Now another one may die: with the lost engine still counted, nothing could be stored.
        three[0].kill9()
        second = three.leader(among=[1, 3])
        fill(three[second], 4 * BODY, BODY)
        for number in (1, 3):
            three.has(number, 5 * BODY - 1)
            stats = three[number].client.get("/api/context/stats").json()
            assert stats["items"] == 5 * BODY
