"""Scores grow with what a machine has; heartbeats are read whatever comes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import heartbeat
from nodes.capabilities import score, score_parts
from nodes.errors import BadHeartbeat
from nodes.heartbeat import Heartbeat

GIB = 2**30
PLAIN: dict[str, Any] = {"cores": 4, "memory_bytes": 15 * GIB, "load1": 1.0, "fsync_p99_ms": 10.0}


@pytest.mark.parametrize(
    "better",
    [
        {"cores": 8},
        {"memory_bytes": 31 * GIB},
        {"gpus": [{"name": "T4"}]},
        {"load1": 0.0},
        {"fsync_p99_ms": 1.0},
        {"models": ["a"]},
        {"trading_systems": ["paper"]},
        {"disk_free_bytes": GIB},
    ],
)
def test_more_of_anything_good_scores_higher(better: dict[str, Any]) -> None:
    assert score(PLAIN | better) > score(PLAIN)


def test_a_score_says_what_it_is_made_of() -> None:
    gpus = [{"name": "NVIDIA H100", "memory_bytes": 79 * GIB}]
    parts = score_parts({"cores": 3, "memory_bytes": 3 * GIB, "gpus": gpus, "load1": 6})
    assert parts == {
        "cores": 2.0, "memory": 1.0, "gpus": 2.0, "gpu_memory": 1.58, "gpu_kind": 0.5, "load": -2.0,
    }  # fmt: skip
    assert score_parts({"cores": 3}, {"cores": 0.5}) == {"cores": 1.0}
    assert score({"cores": 1, "peer_latency_ms": 1e9}, {"cores": 0.1}) == 0.0


def test_a_heartbeat_survives_the_wire_and_other_versions() -> None:
    beat = Heartbeat(id="a", url="http://a", number=3, capabilities={"cores": 2})
    assert heartbeat.decode(heartbeat.encode(beat)) == beat
    newer = heartbeat.decode(b'{"id":"b","url":"http://b","protocol":2,"unheard_of":[1]}')
    assert newer.eligible
    assert not heartbeat.decode(b'{"id":"b","url":"http://b","protocol":3}').eligible


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(BadHeartbeat):
        heartbeat.decode(data)
