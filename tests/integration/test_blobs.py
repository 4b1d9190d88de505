"""Blobs over HTTP: on one node, brought along into a cluster, and reached from every node."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.cluster import Cluster
from tests.node_process import NodeProcess, wait_for


def test_a_blob_of_one_node_is_reached_from_every_node_of_its_cluster(tmp_path: Path) -> None:
    # Under load an empty node must not be the first to found the cluster.
    three = Cluster(tmp_path, env={"CONTEXT_FOUND_AFTER_S": "60"})
    data = os.urandom(1 << 20)
    name = hashlib.sha256(data).hexdigest()
    with NodeProcess(tmp_path / "n0", three[0].port, "--id", "n0") as alone:
        alone.client.ingest({"type": "note", "data": {"n": 0}})
        made = alone.client.post("/api/blobs", data=data)
        assert (made.status_code, made.json()) == (201, {"sha256": name, "size": len(data)})
        assert alone.client.get(f"/api/blobs/{name}").content == data
        for missing in ("0" * 64, "x", "..%2f..%2flog.db"):
            assert alone.client.get(f"/api/blobs/{missing}").status_code == 404
        assert alone.client.post("/api/blobs", data=bytes(17 << 20)).status_code == 413
    try:
        three.start()
        three.leader()
        for node in three.nodes:
            assert node.client.get(f"/api/blobs/{name}").content == data
        for n, node in enumerate(three.nodes):  # whoever leads

            def stored(n: int = n, node: NodeProcess = node) -> bool:
                return node.client.post("/api/blobs", data=b"%d" % n).status_code == 201

            wait_for(stored, "a blob to be stored", 30)
        listed = [node.client.get("/api/blobs").json()["blobs"] for node in three.nodes]
        assert listed[0] == listed[1] == listed[2]
        assert sorted(blob["size"] for blob in listed[0]) == [1, 1, 1, len(data)]
        assert three[1].client.delete(f"/api/blobs/{name}").status_code == 200
        assert three[2].client.get(f"/api/blobs/{name}").status_code == 404
        three[three.leader()].kill9()
        left = next(node for node in three.nodes if node.pids())
        wait_for(
            lambda: left.client.get(f"/api/blobs/{hashlib.sha256(b'1').hexdigest()}").text == "1",
            "a blob that a majority still has",
            60,
        )
    finally:
        three.stop()
